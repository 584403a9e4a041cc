//! The frame of an aggregate: a magic number before the message, and a checksum after it.

use md5::{Digest, Md5};

pub(super) const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
const CHECKSUM: usize = 16;

/// The bytes that the frame adds to the message.
pub(super) const FRAME: usize = MAGIC.len() + CHECKSUM;

/// Returns the message in the frame, or `None` if this is no aggregate.
///
/// The magic number alone proves little, because payloads may begin with anything. The checksum
/// identifies an aggregate.
pub(super) fn message(data: &[u8]) -> Option<&[u8]> {
    let rest = data.strip_prefix(&MAGIC)?;
    let (message, checksum) = rest.split_last_chunk::<CHECKSUM>()?;
    (Md5::digest(message)[..] == checksum[..]).then_some(message)
}

/// Returns whether some reader may treat these bytes as an aggregate. An empty frame counts: the KCL
/// treats it as a bare record, others as an aggregate of no records.
pub(super) fn is_aggregate(data: &[u8]) -> bool {
    message(data).is_some()
}

/// Wraps the concatenated `parts` in a frame.
pub(super) fn wrap<const N: usize>(parts: [&[u8]; N]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut data = Vec::with_capacity(FRAME + length);
    data.extend_from_slice(&MAGIC);
    for part in parts {
        data.extend_from_slice(part);
    }
    let checksum = Md5::digest(&data[MAGIC.len()..]);
    data.extend_from_slice(&checksum);
    data
}
