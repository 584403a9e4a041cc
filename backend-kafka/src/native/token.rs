//! Sets the token of a client, whether it has requested one or not.

use std::ffi::{CString, c_char};
use std::ptr;

use rdkafka::bindings;
use rdkafka::client::{Client, ClientContext, OAuthToken};

/// Sets the token of a client. Does not wait.
pub(crate) fn set<C: ClientContext>(client: &Client<C>, token: OAuthToken) -> Result<(), String> {
    let text = |what: &str, text: String| {
        CString::new(text).map_err(|_| format!("the token's {what} holds a NUL byte"))
    };
    let value = text("value", token.token)?;
    let principal = text("principal", token.principal_name)?;
    let mut said = [0_u8; 512];
    // SAFETY: the client lives through the call, and its handle is thread safe. The strings are
    // terminated, and librdkafka copies them. No extensions are given, so a null list of length
    // 0 is valid. Its error text is terminated within the length that it is given.
    let code = unsafe {
        bindings::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            token.lifetime_ms,
            principal.as_ptr(),
            ptr::null_mut(),
            0,
            said.as_mut_ptr().cast::<c_char>(),
            said.len(),
        )
    };
    if code == bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    let end = said.iter().position(|byte| *byte == 0);
    let said = &said[..end.unwrap_or(said.len())];
    Err(String::from_utf8_lossy(said).into_owned())
}
