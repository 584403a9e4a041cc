//! Changes the password of a running client.

use std::ffi::CString;

use rdkafka::ClientContext;
use rdkafka::bindings as rd;
use rdkafka::client::Client;

/// Sets the credentials that a client uses for its future connections (`PLAIN`, `SCRAM-*`). Does not wait.
pub(crate) fn set<C: ClientContext>(client: &Client<C>, username: &str, password: &str) {
    let (Ok(username), Ok(password)) = (CString::new(username), CString::new(password)) else {
        // No client was created with such a password.
        return;
    };
    // SAFETY: the client is alive, and copies the texts, which are C strings. The only errors are about null
    // pointers. Without an error there is nothing to destroy, and destroying null does nothing.
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
