//! Checks the stream's limits: `send` refuses a record at once, before it takes room or delays
//! other records.

use crate::driver::StreamLimits;
use crate::{Error, ErrorKind, Record};

/// Returns the size of a record that `limits` allow.
///
/// # Errors
/// `Invalid` and `TooLarge`, with the limit.
pub(super) fn check(limits: &StreamLimits, stream: &str, record: &Record) -> Result<usize, Error> {
    let refuse = |kind, message: String| Err(Error::new(kind, "send", message).with_stream(stream));
    if let Some(key) = &record.key {
        if key.is_empty() && !limits.empty_key {
            let message = "the key is empty, use at least 1 byte or no key";
            return refuse(ErrorKind::Invalid, message.into());
        }
        if key.len() > limits.key_bytes {
            let message = format!(
                "the key has {} bytes, use at most {}",
                key.len(),
                limits.key_bytes
            );
            return refuse(ErrorKind::Invalid, message);
        }
        if limits.text_key && std::str::from_utf8(key).is_err() {
            let message = "the key is not UTF-8, this stream takes text keys only";
            return refuse(ErrorKind::Invalid, message.into());
        }
        // A character has a byte at least, so most keys need not be counted.
        if let Some(most) = limits.key_chars.filter(|most| key.len() > *most) {
            let chars = String::from_utf8_lossy(key).encode_utf16().count();
            if chars > most {
                let message = format!("the key has {chars} characters, use at most {most}");
                return refuse(ErrorKind::Invalid, message);
            }
        }
    }
    if record.headers.iter().any(|(name, _)| name.is_empty()) {
        let message = "a header name is empty, use at least 1 byte";
        return refuse(ErrorKind::Invalid, message.into());
    }
    let size = record.size();
    if size > limits.record_bytes {
        let message = format!(
            "the record has {size} bytes (key, payload and headers), use at most {}",
            limits.record_bytes
        );
        return refuse(ErrorKind::TooLarge, message);
    }
    Ok(size)
}
