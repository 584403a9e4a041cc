//! Adds bootstrap servers to a client.

use std::ffi::CStr;

use rdkafka::ClientContext;
use rdkafka::bindings as rd;
use rdkafka::client::Client;

/// Adds servers, in the format of `bootstrap.servers`, to those that a client knows. Does not wait.
pub(crate) fn add_servers<C: ClientContext>(client: &Client<C>, servers: &CStr) {
    // SAFETY: the client is alive, and the text is a C string, which the client copies.
    unsafe { rd::rd_kafka_brokers_add(client.native_ptr(), servers.as_ptr()) };
}
