//! Unusual records: tombstones, and records at the limits of what a stream accepts.

use std::time::{Duration, UNIX_EPOCH};

use fastrand::Rng;
use millstream_core::Record;
use millstream_memory::Imitation;

use super::script::{ProducerPlan, Script};

/// The ways in which the records of a producer differ from ordinary ones.
#[derive(Debug)]
pub(super) struct Oddities {
    tombstones: f64,
    odd: f64,
    like: Option<Imitation>,
    /// The size of the largest record.
    full: Option<usize>,
}

impl Oddities {
    pub(super) fn new(script: &Script, plan: &ProducerPlan) -> Self {
        // Brokers count more than keys, payloads and headers.
        let overhead = match script.like {
            None => 0,
            Some(_) => 200,
        };
        Self {
            tombstones: plan.tombstones,
            odd: plan.odd,
            like: script.like,
            full: script.record_bytes.map(|limit| limit - overhead),
        }
    }

    /// Turns some records into tombstones or odd records.
    pub(super) fn change(&self, mut record: Record, dice: &mut Rng) -> Record {
        if dice.f64() < self.tombstones {
            record.payload = None;
        }
        if dice.f64() >= self.odd {
            return record;
        }
        if dice.bool() {
            self.add_header(&mut record, dice);
        }
        if dice.bool() {
            let millis = Duration::from_millis(dice.u64(1..100_000_000));
            record.timestamp = match dice.bool() && self.like != Some(Imitation::Kafka) {
                true => Some(UNIX_EPOCH - millis),
                false => Some(UNIX_EPOCH + millis),
            };
        }
        if dice.bool() {
            self.fill(&mut record);
        }
        record
    }

    fn add_header(&self, record: &mut Record, dice: &mut Rng) {
        const NAMES: [&str; 6] = ["two\nlines", " ", "größe", "\u{7f}", "a\0b", "\0"];
        let names = match self.like {
            Some(Imitation::Kafka) => &NAMES[..4],
            Some(_) => &NAMES[..5],
            None => &NAMES,
        };
        let name = names[dice.usize(..names.len())];
        match dice.u8(..3) {
            0 => record.headers.push_null(name),
            1 => record.headers.push(name, ""),
            _ => record.headers.push(name, vec![0, 255]),
        }
    }

    /// Extends the payload up to the limit of the stream.
    fn fill(&self, record: &mut Record) {
        let missing = self.full.map(|full| full.saturating_sub(record.size()));
        if let (Some(missing), Some(payload)) = (missing, &record.payload) {
            let mut filled = payload.to_vec();
            filled.resize(payload.len() + missing, b'x');
            record.payload = Some(filled.into());
        }
    }
}
