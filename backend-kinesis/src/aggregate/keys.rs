//! Records without a key. Kinesis requires a partition key, so they get one that readers recognize.

use bytes::Bytes;

/// The prefix of the partition keys of records without a key. The rest only spreads them.
const KEYLESS: &[u8] = b"millstream:-:";

/// Returns a partition key for records without a key.
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

/// Returns the key of a record from its partition key, if it has one.
///
/// An empty partition key means no key: Kinesis accepts none, and a record that was stored without a partition key is
/// read with an empty one (streams whose record distribution is `AUTO`).
pub(crate) fn key_of(partition_key: Bytes) -> Option<Bytes> {
    let has_key = !partition_key.is_empty() && !is_keyless(&partition_key);
    has_key.then_some(partition_key)
}

pub(super) fn is_keyless(partition_key: &[u8]) -> bool {
    partition_key.starts_with(KEYLESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, key) in [
            (0, "millstream:-:0"),
            (35, "millstream:-:z"),
            (36, "millstream:-:10"),
            (u64::MAX, "millstream:-:3w5e11264sgsf"),
        ] {
            assert_eq!(keyless(number), key);
            assert_eq!(key_of(keyless(number)), None);
        }
    }

    #[test]
    fn an_absent_partition_key_is_no_key() {
        assert_eq!(key_of(Bytes::new()), None);
    }

    #[test]
    fn other_keys_are_keys() {
        for key in ["k", "millstream:-", "Millstream:-:1", " millstream:-:1"] {
            let key = Bytes::from_static(key.as_bytes());
            assert_eq!(key_of(key.clone()), Some(key));
        }
    }
}
