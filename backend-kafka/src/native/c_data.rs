//! Reads strings and byte arrays of C.

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_void};
use std::slice;

/// Reads a C string. Null is the empty text.
///
/// # Safety
/// `text` is null or a C string that lives during `'a`.
pub(super) unsafe fn text<'a>(text: *const c_char) -> Cow<'a, str> {
    if text.is_null() {
        return Cow::Borrowed("");
    }
    // SAFETY: by the contract above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy()
}

/// Reads a byte array. Null is `None`.
///
/// # Safety
/// `start` is null or the first of `size` bytes that live during `'a`.
pub(super) unsafe fn bytes<'a>(start: *const c_void, size: usize) -> Option<&'a [u8]> {
    // SAFETY: by the contract above.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast(), size) })
}
