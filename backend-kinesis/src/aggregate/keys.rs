//! Records without a key. Kinesis knows none, so they get a partition key that readers know.

use bytes::Bytes;

/// What the partition keys of records without a key begin with. What follows only spreads them.
const KEYLESS: &[u8] = b"millstream:-:";

/// A partition key for records without a key.
pub(crate) fn keyless(mut number: u64) -> Bytes {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut digits = Vec::new();
    while number > 0 || digits.is_empty() {
        digits.push(DIGITS[(number % 36) as usize]);
        number /= 36;
    }
    digits.reverse();
    [KEYLESS, &digits].concat().into()
}

/// The key of a record by its partition key, if it has one.
pub(crate) fn key_of(partition_key: Bytes) -> Option<Bytes> {
    (!is_keyless(&partition_key)).then_some(partition_key)
}

pub(super) fn is_keyless(partition_key: &[u8]) -> bool {
    partition_key.starts_with(KEYLESS)
}
