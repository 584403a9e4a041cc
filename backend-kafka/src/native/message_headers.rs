//! Reads the headers of messages.

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::slice;
use std::sync::OnceLock;

use rdkafka::bindings as sys;
use rdkafka::error::IsError;

use super::c_data::bytes;
use super::header_name;

/// A header as librdkafka holds it.
pub(super) type Header<'a> = (Cow<'a, str>, Option<&'a [u8]>);

/// Adds the headers of a message, in order.
///
/// # Safety
/// `message` was given by the batch call and is not destroyed during `'a`.
pub(super) unsafe fn add_headers<'a>(
    message: *mut sys::rd_kafka_message_t,
    to: &mut Vec<Header<'a>>,
) {
    let mut list = ptr::null_mut();
    // SAFETY: the message lives. The list that the call returns belongs to it.
    let none = unsafe { sys::rd_kafka_message_headers(message, &mut list) };
    if none.is_error() || list.is_null() {
        return;
    }
    // SAFETY: the list lives as long as the message.
    unsafe { add_list(list, to) }
}

/// Adds the headers of a list, in order.
///
/// # Safety
/// The list lives during `'a`, and is not changed.
unsafe fn add_list<'a>(list: *const sys::rd_kafka_headers_t, to: &mut Vec<Header<'a>>) {
    // SAFETY: by the contract above. Each call below sets all three pointers, which belong to the list,
    // or returns an error.
    unsafe {
        for index in 0..sys::rd_kafka_header_cnt(list) {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            let found = sys::rd_kafka_header_get_all(list, index, &mut name, &mut value, &mut size);
            if found.is_error() {
                break;
            }
            to.push((read_name(name, value), bytes(value, size)));
        }
    }
}

/// Reads the name of a header. librdkafka returns it as a C string, which ends at a NUL byte of the name.
/// But librdkafka lays a value out directly after its name, so the value's address shows where the name ends.
///
/// The name of a null value is read up to its first NUL byte.
///
/// # Safety
/// Name and value are of one header, which lives during `'a`.
unsafe fn read_name<'a>(name: *const c_char, value: *const c_void) -> Cow<'a, str> {
    // SAFETY: by the contract above. librdkafka terminates names.
    let mut bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    if !value.is_null() && values_follow_names() {
        // Less the NUL byte that terminates the name.
        let length = (value as usize - name as usize).saturating_sub(1);
        // SAFETY: all bytes up to the value belong to the name, as checked above, and live as long.
        bytes = unsafe { slice::from_raw_parts(name.cast(), length) };
    }
    header_name::to_text(bytes)
}

/// Returns whether librdkafka lays the value of a header out directly after its name, in one allocation. Checked
/// on a header of our own, since its documentation does not promise it.
fn values_follow_names() -> bool {
    static FOLLOW: OnceLock<bool> = OnceLock::new();
    *FOLLOW.get_or_init(|| {
        const NAME: &[u8; 3] = b"a\0b";
        // SAFETY: name and value are copied, with their lengths. The list lives until it is destroyed, once, and
        // no borrow of it is kept.
        unsafe {
            let list = sys::rd_kafka_headers_new(1);
            let size = NAME.len() as isize;
            sys::rd_kafka_header_add(list, NAME.as_ptr().cast(), size, b"v".as_ptr().cast(), 1);
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            sys::rd_kafka_header_get_all(list, 0, &mut name, &mut value, &mut size);
            let follows = (value as usize).checked_sub(name as usize) == Some(NAME.len() + 1);
            sys::rd_kafka_headers_destroy(list);
            follows
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the names of headers as they are read, for headers with these names and this value.
    fn names_read(names: &[&[u8]], value: Option<&[u8]>) -> Vec<String> {
        // SAFETY: names and values live as long as the calls, which copy them. The list is destroyed
        // once, after everything that was read from it is copied.
        unsafe {
            let list = sys::rd_kafka_headers_new(names.len());
            for name in names {
                sys::rd_kafka_header_add(
                    list,
                    name.as_ptr().cast(),
                    name.len() as isize,
                    value.map_or(ptr::null(), |value| value.as_ptr().cast()),
                    value.map_or(0, |value| value.len() as isize),
                );
            }
            let mut headers = Vec::new();
            add_list(list, &mut headers);
            let read = headers.iter().map(|(name, read)| {
                assert_eq!(*read, value);
                name.clone().into_owned()
            });
            let read = read.collect();
            sys::rd_kafka_headers_destroy(list);
            read
        }
    }

    #[test]
    fn header_names_keep_their_bytes() {
        let names: [&[u8]; 4] = [b"trace", b"", b"a\xff\xfe", b"a\0b"];
        for value in [Some(&b"v"[..]), Some(b"")] {
            let read = names_read(&names, value);
            assert_eq!(read, ["trace", "", "a\u{10FFFF}\u{10FFFE}", "a\0b"]);
        }
        assert_eq!(
            names_read(&names[..3], None),
            ["trace", "", "a\u{10FFFF}\u{10FFFE}"]
        );
    }
}
