use millstream_core::driver::StreamLimits;

/// The maximum number of characters. Some brokers accept keys of megabytes.
const MOST: usize = 1_000;

/// Returns a key that repeats this character as often as the stream accepts it, up to a thousand times.
pub(super) fn longest_key(limits: &StreamLimits, of: char) -> String {
    let chars = limits.key_chars.unwrap_or(usize::MAX) / of.len_utf16();
    let count = chars.min(limits.key_bytes / of.len_utf8()).min(MOST);
    String::from(of).repeat(count)
}
