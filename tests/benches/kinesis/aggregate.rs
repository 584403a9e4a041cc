//! Reads aggregates of the Kinesis Producer Library, independently of the backend.

use prost::Message;

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
/// The length of the MD5 at the end.
const DIGEST: usize = 16;

#[derive(Clone, PartialEq, Message)]
struct Aggregate {
    #[prost(string, repeated, tag = "1")]
    keys: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<Item>,
}

#[derive(Clone, PartialEq, Message)]
struct Item {
    #[prost(uint64, tag = "1")]
    key: u64,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
}

/// Returns key and payload of each user record in the data of a Kinesis record, which may be one itself.
pub(crate) fn open(key: String, data: Vec<u8>) -> Vec<(String, Vec<u8>)> {
    let framed = data.strip_prefix(&MAGIC);
    let framed = framed.and_then(|rest| rest.split_last_chunk::<DIGEST>());
    match framed.map(|(message, _)| Aggregate::decode(message)) {
        Some(Ok(Aggregate { keys, records })) => {
            let key = |item: &Item| keys.get(item.key as usize).cloned().unwrap_or_default();
            let opened = records.into_iter().map(|item| (key(&item), item.data));
            opened.collect()
        }
        _ => vec![(key, data)],
    }
}
