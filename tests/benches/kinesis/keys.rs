//! The keys and payloads of all records.

use md5::{Digest, Md5};

pub(crate) const SHARDS: usize = 4;
const KEYS: usize = 1_000;
/// The size of a payload.
pub(crate) const BYTES: usize = 100;

/// Returns the keys, with the same number for each of [`SHARDS`], each shard in turn. Otherwise a full stream would
/// show the luck of its keys.
pub(crate) fn keys() -> Vec<String> {
    let mut keys = vec![Vec::new(); SHARDS];
    for number in 0.. {
        let key = format!("car-{number:05}");
        // The shards of a new stream have equal parts of all hashes.
        let shard = &mut keys[usize::from(Md5::digest(&key)[0]) * SHARDS / 256];
        if shard.len() < KEYS / SHARDS {
            shard.push(key);
        }
        if keys.iter().all(|shard| shard.len() == KEYS / SHARDS) {
            break;
        }
    }
    let of_each = |target: usize| keys.iter().map(move |shard| shard[target].clone());
    (0..KEYS / SHARDS).flat_map(of_each).collect()
}

/// Returns the payload of this number.
pub(crate) fn payload(number: u64) -> Vec<u8> {
    let mut payload = vec![b'x'; BYTES];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    payload
}

pub(crate) fn number(payload: &[u8]) -> Option<u64> {
    payload
        .first_chunk()
        .map(|bytes| u64::from_be_bytes(*bytes))
}
