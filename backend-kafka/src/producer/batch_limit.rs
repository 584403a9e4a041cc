//! The size limit of a producer's batches, after its topic has rejected one.
//!
//! A topic limits the size of batches (`max.message.bytes`), and a batch of small records may be too large for it: the
//! limit was lowered since the producer requested it, or this client may not read it. The records are then sent again
//! in smaller batches.

use millstream_core::Record;

use super::size_limits::{RECORD_OVERHEAD, SizeLimits};

/// The size limits of librdkafka's batches and records, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchLimit {
    /// For `batch.size`: further records join a batch only below this size.
    pub(super) batch: usize,
    /// For `message.max.bytes`.
    pub(super) record: usize,
}

impl BatchLimit {
    /// Returns whether a record may have shared its batch with others. A record that is rejected alone is too large.
    pub(super) fn may_share(self, record: &Record) -> bool {
        SizeLimits::record_bytes(record) + RECORD_OVERHEAD < self.batch
    }

    /// Returns a lower limit, after a batch was rejected: the topic's limit, or half of this one if the topic's is not
    /// lower.
    #[must_use]
    pub(super) fn lowered(self, topic: Option<usize>) -> Self {
        let known = topic.map(|topic| SizeLimits::new(Some(topic)).message_max);
        match known.filter(|known| *known < self.batch) {
            Some(known) => Self {
                batch: known,
                record: self.record.min(known),
            },
            None => Self {
                batch: (self.batch / 2).max(1),
                ..self
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: BatchLimit = BatchLimit {
        batch: 1_000_000,
        record: 1_000_000,
    };

    #[test]
    fn a_lower_limit_of_the_topic_is_taken_up() {
        let lowered = LIMIT.lowered(Some(10_061));
        assert_eq!((lowered.batch, lowered.record), (10_000, 10_000));
        // Brokers may learn of the new setting at different times, so a batch within it is halved, too.
        assert_eq!(lowered.lowered(Some(10_061)).batch, 5_000);
    }

    #[test]
    fn batches_become_smaller_until_each_record_has_its_own() {
        let record = Record::new(vec![0; 100]).key("k");
        let mut limit = LIMIT;
        let mut steps = 0;
        while limit.may_share(&record) {
            let lowered = limit.lowered(None);
            assert!(lowered.batch < limit.batch);
            assert_eq!(lowered.record, limit.record, "a large record may still fit");
            limit = lowered;
            steps += 1;
        }
        assert_eq!(steps, 13);
        assert!(!LIMIT.may_share(&Record::new(vec![0; 1_000_000])));
    }
}
