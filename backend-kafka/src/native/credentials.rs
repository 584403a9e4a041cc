//! A new password for a client that runs.

use std::ffi::CString;

use rdkafka::ClientContext;
use rdkafka::bindings as rd;
use rdkafka::client::Client;

/// Sets what a client logs in with from its next connection on (`PLAIN`, `SCRAM-*`). Does not wait.
pub(crate) fn set<C: ClientContext>(client: &Client<C>, username: &str, password: &str) {
    let (Ok(username), Ok(password)) = (CString::new(username), CString::new(password)) else {
        // No client was made with such a one.
        return;
    };
    // SAFETY: the client is alive, and makes its own copies of the texts, which are C strings. The only errors
    // are about null pointers; without one there is nothing to destroy, and destroying null does nothing.
    unsafe {
        let error = rd::rd_kafka_sasl_set_credentials(
            client.native_ptr(),
            username.as_ptr(),
            password.as_ptr(),
        );
        if !error.is_null() {
            rd::rd_kafka_error_destroy(error);
        }
    }
}
