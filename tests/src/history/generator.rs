use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millstream_core::{Delivery, Record};

use super::{Event, History};

/// The header with the id of a record.
const ID: &str = "id";

/// Numbers the records of a run, and records them as sent.
#[derive(Debug)]
pub struct RecordGenerator {
    history: History,
    stream: Arc<str>,
    next_id: u64,
    sequences: BTreeMap<Option<Arc<str>>, u64>,
}

impl RecordGenerator {
    /// Creates the load of one stream. Ids count from `first_id`, so that several loads of one history
    /// have different ids.
    pub fn new(history: &History, stream: &str, first_id: u64) -> Self {
        Self {
            history: history.clone(),
            stream: stream.into(),
            next_id: first_id,
            sequences: BTreeMap::new(),
        }
    }

    /// Continues in `stream`. In another stream than before, the sequences of all keys restart.
    pub fn continue_in(&mut self, stream: &Arc<str>) {
        if self.stream != *stream {
            self.stream = stream.clone();
            self.sequences.clear();
        }
    }

    /// Creates the next record of `key`, records that it is sent, and returns its id. Send it at once:
    /// the order of these calls is the order that the checker expects.
    pub fn next(&mut self, key: Option<&str>) -> (u64, Record) {
        self.next_with(key, |record| record)
    }

    /// Like [`next`](Self::next), with a record that is changed before it is recorded. It must keep its
    /// key, and its id in the payload or the header.
    pub fn next_with(
        &mut self,
        key: Option<&str>,
        change: impl FnOnce(Record) -> Record,
    ) -> (u64, Record) {
        let key: Option<Arc<str>> = key.map(Into::into);
        let sequence = self.sequences.entry(key.clone()).or_default();
        *sequence += 1;
        let id = self.next_id;
        self.next_id += 1;
        let record = change(record(id, key.as_deref()));
        self.history.record(Event::Sent {
            stream: self.stream.clone(),
            key,
            sequence: *sequence,
            id,
            digest: digest(
                record.key.as_ref(),
                record.payload.as_ref(),
                record.headers.iter(),
            ),
        });
        (id, record)
    }
}

/// Returns a record with its id in the payload and in a header.
pub fn record(id: u64, key: Option<&str>) -> Record {
    let record =
        Record::new(format!("{id}:{}", "x".repeat((id % 40) as usize))).header(ID, id.to_string());
    match key {
        Some(key) => record.key(key),
        None => record,
    }
}

/// Returns the id in the payload of a [`record`], or `None` if the payload is not one of a `record`.
pub fn id_of(payload: &[u8]) -> Option<u64> {
    let end = payload.iter().position(|byte| *byte == b':')?;
    std::str::from_utf8(&payload[..end]).ok()?.parse().ok()
}

/// Returns the id of a [`record`], from its payload, or from its header if the payload is missing or empty:
/// a tombstone that arrives with an empty payload is an altered record, not an unknown one.
pub fn id_of_delivery(delivery: &Delivery) -> Option<u64> {
    match delivery.payload() {
        payload if payload.is_empty() => delivery.headers().get_str(ID)?.parse().ok(),
        payload => id_of(payload),
    }
}

/// Returns a short fingerprint (FNV-1a) of the data that must survive, including lengths.
pub fn digest<'a>(
    key: Option<&Bytes>,
    payload: Option<&Bytes>,
    headers: impl Iterator<Item = (&'a str, Option<&'a Bytes>)>,
) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |part: &[u8]| {
        for byte in part.len().to_le_bytes().iter().chain(part) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(if key.is_some() { b"key" } else { b"" });
    add(key.map_or(&[][..], |key| &key[..]));
    add(if payload.is_some() { b"payload" } else { b"" });
    add(payload.map_or(&[][..], |payload| &payload[..]));
    for (name, value) in headers {
        add(name.as_bytes());
        add(if value.is_some() { b"value" } else { b"" });
        add(value.map_or(&[][..], |value| &value[..]));
    }
    hash
}

/// Returns the [`digest`] of a delivery.
pub(crate) fn digest_of(delivery: &Delivery) -> u64 {
    digest(
        delivery.key(),
        delivery.nullable_payload(),
        delivery.headers().iter(),
    )
}
