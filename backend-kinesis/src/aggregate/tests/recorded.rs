//! Data written by the KPL itself, and vectors that the AWS libraries were seen to read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::*;
use crate::stream::{HashKey, HashRange};

/// An aggregate of the KPL 1.0.7, with the records that the KCL 2.7.2 and 3.5.1 delivered to their applications, and
/// their explicit hash keys, if its records have some.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recorded {
    starting_hash_key: String,
    ending_hash_key: String,
    partition_key: String,
    data_base64: String,
    user_records: Vec<(String, String)>,
    #[serde(default)]
    explicit_hash_keys: Vec<Option<String>>,
}

impl Recorded {
    fn data(&self) -> Bytes {
        STANDARD.decode(&self.data_base64).unwrap().into()
    }

    fn range(&self) -> HashRange {
        HashRange {
            first: self.starting_hash_key.parse().unwrap(),
            last: self.ending_hash_key.parse().unwrap(),
        }
    }

    fn explicit_hash_key(&self, sub: usize) -> Option<HashKey> {
        let hash = self.explicit_hash_keys.get(sub)?.as_ref()?;
        Some(hash.parse().unwrap())
    }
}

fn recorded() -> Vec<Recorded> {
    let lines = include_str!("../recorded/kpl.jsonl").lines();
    let recorded: Vec<_> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(recorded.len(), 9);
    recorded
}

#[test]
fn reads_what_the_kpl_wrote() {
    for aggregate in recorded() {
        let records = opened(&aggregate.data());
        assert_eq!(records.len(), aggregate.user_records.len());
        for ((record, (key, payload)), sub) in records.iter().zip(&aggregate.user_records).zip(0..)
        {
            assert_eq!(record.sub, sub);
            assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
            assert_eq!(record.payload.as_deref(), Some(payload.as_bytes()));
            assert!(record.headers.is_empty());
            assert_eq!(record.timestamp, None);
            let hash = aggregate.explicit_hash_key(sub as usize);
            assert_eq!(record.hash, hash.unwrap_or_else(|| HashKey::of(key)));
            assert!(aggregate.range().contains(record.hash));
        }
    }
}

#[test]
fn writes_as_the_kpl_does() {
    for recorded in recorded() {
        let mut aggregate = AggregateBuilder::new();
        for (sub, (key, payload)) in recorded.user_records.iter().enumerate() {
            let address = Address {
                partition_key: &key.clone().into(),
                explicit_hash_key: recorded.explicit_hash_key(sub),
            };
            aggregate.push(address, &Record::new(payload.clone()));
        }
        let entry = aggregate.finish().unwrap();
        assert_eq!(entry.data, recorded.data());
        assert_eq!(entry.partition_key, recorded.partition_key);
        assert!(recorded.range().contains(entry.explicit_hash_key.unwrap()));
    }
}

#[test]
fn writes_headers_as_tags() {
    let record = Record::new("hi").header("a", "b");
    let record = record.header("id", &[0xFF, 0][..]);
    let entry = Entry::of(&Bytes::from_static(b"k"), &record);
    let vector = "f3899ac20a016b1a1a08001a02686922060a0161120162220a0a0269641204002f7741c8\
                  0ed52f0320196225e6baf2fa246507";
    assert_eq!(entry.data, hex(vector));
    let read = opened(&entry.data);
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].headers, record.headers);
}

#[test]
fn reads_explicit_hash_keys() {
    let vector = "f3899ac20a03706b300a03706b31120234321a0908001a0568656c6c6f1a0b080110001a05776f\
                  726c64d07b18f51d2645c3f8f38ff4dd03f8b7";
    let read = opened(&hex(vector));
    let read: Vec<_> = read
        .iter()
        .map(|record| {
            (
                record.key.as_deref().unwrap(),
                record.payload.as_deref().unwrap(),
                record.hash,
            )
        })
        .collect();
    assert_eq!(
        read,
        [
            (&b"pk0"[..], &b"hello"[..], HashKey::of("pk0")),
            (b"pk1", b"world", HashKey(42)),
        ]
    );
}
