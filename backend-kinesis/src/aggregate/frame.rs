//! What makes a carrier of bytes: a magic number before, a checksum behind.

use md5::{Digest, Md5};

pub(super) const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
const CHECKSUM: usize = 16;

/// What the frame adds to the message in it.
pub(super) const FRAME: usize = MAGIC.len() + CHECKSUM;

/// The message in the frame, or nothing if this is no carrier.
///
/// The magic number alone proves little, and payloads may begin with anything: it is the checksum
/// that tells a carrier.
pub(super) fn message(data: &[u8]) -> Option<&[u8]> {
    let rest = data.strip_prefix(&MAGIC)?;
    let (message, checksum) = rest.split_last_chunk::<CHECKSUM>()?;
    (Md5::digest(message)[..] == checksum[..]).then_some(message)
}

/// Whether some reader may take these bytes for a carrier. One with nothing in it counts: the KCL
/// takes it for a bare record, others for a carrier of no records.
pub(super) fn is_carrier(data: &[u8]) -> bool {
    message(data).is_some()
}

/// Puts what `parts` make together in a frame.
pub(super) fn seal<const N: usize>(parts: [&[u8]; N]) -> Vec<u8> {
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
