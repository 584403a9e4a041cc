//! Giving a client servers to ask for the others.

use std::ffi::CStr;

use rdkafka::ClientContext;
use rdkafka::bindings as rd;
use rdkafka::client::Client;

/// Adds servers, as in `bootstrap.servers`, to those that a client knows. Does not wait.
pub(crate) fn add_servers<C: ClientContext>(client: &Client<C>, servers: &CStr) {
    // SAFETY: the client is alive, and the text is a C string, of which the client makes its own copy.
    unsafe { rd::rd_kafka_brokers_add(client.native_ptr(), servers.as_ptr()) };
}
