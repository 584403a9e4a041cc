//! The records whose requests a broker refused for other records in them, or for being too large together,
//! which has ended their client.
//!
//! They can be sent again unless a later request of their partition got through: then they would
//! come behind records that were sent after them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rdkafka::types::RDKafkaRespErr as Raw;

use super::batch_limit::BatchLimit;
use crate::native::delivery::{Batch, Report};

#[derive(Default)]
pub(super) struct CollateralRecords {
    records: Vec<(i32, Arc<Batch>, usize, Report)>,
    /// Their partitions, and whether later records were stored there.
    overtaken: HashMap<i32, bool>,
    /// Whether any request was too large.
    too_large: bool,
}

impl CollateralRecords {
    /// Looks at each report in the order in which they come; keeps collateral records. `limit` is how large
    /// the client's batches are.
    pub(super) fn keep(
        &mut self,
        batch: &Arc<Batch>,
        index: usize,
        report: Report,
        limit: BatchLimit,
    ) -> bool {
        const TOO_LARGE: i32 = Raw::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE as i32;
        const TOO_LONG: i32 = Raw::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE as i32;
        const OTHER: i32 = Raw::RD_KAFKA_RESP_ERR__INVALID_DIFFERENT_RECORD as i32;
        match report {
            Report::Stored { partition, .. } => {
                if let Some(overtaken) = self.overtaken.get_mut(&partition) {
                    *overtaken = true;
                }
                false
            }
            Report::Failed {
                partition,
                code: OTHER,
                maybe_stored: false,
            } => {
                self.overtaken.entry(partition).or_default();
                self.records.push((partition, batch.clone(), index, report));
                true
            }
            Report::Failed {
                partition,
                code: TOO_LARGE | TOO_LONG,
                maybe_stored: false,
            } if limit.may_share(batch.record(index)) => {
                self.too_large = true;
                // What it is told if it cannot be sent again: it was not too large itself.
                let report = Report::Failed {
                    partition,
                    code: OTHER,
                    maybe_stored: false,
                };
                self.overtaken.entry(partition).or_default();
                self.records.push((partition, batch.clone(), index, report));
                true
            }
            Report::Failed { .. } => false,
        }
    }

    /// Whether records came back that are to go in smaller requests.
    pub(super) fn needs_smaller_batches(&self) -> bool {
        self.too_large
    }

    pub(super) fn release(self, back: &mut BTreeMap<u64, Arc<Batch>>) {
        for (partition, batch, index, report) in self.records {
            if self.overtaken[&partition] {
                batch.report(index, report);
                if let Some(complete) = batch.settle(1) {
                    complete.wake();
                }
            } else {
                back.insert(batch.turn(), batch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use millstream_core::Record;

    use super::*;

    const LIMIT: BatchLimit = BatchLimit {
        batch: 1_000,
        record: 1_000_000,
    };

    fn stored(partition: i32) -> Report {
        Report::Stored {
            partition,
            offset: 1,
        }
    }

    fn collateral(partition: i32) -> Report {
        Report::Failed {
            partition,
            code: Raw::RD_KAFKA_RESP_ERR__INVALID_DIFFERENT_RECORD as i32,
            maybe_stored: false,
        }
    }

    #[test]
    fn collateral_records_come_back_unless_later_ones_were_stored() {
        let batch = Batch::new(vec![Record::new(""); 4], Instant::now(), |_| Ok(()));
        let batch = Arc::new(batch);
        batch.take_turn(1);
        let mut left = CollateralRecords::default();
        // What was stored before is no harm.
        assert!(!left.keep(&batch, 0, stored(0), LIMIT));
        assert!(left.keep(&batch, 1, collateral(0), LIMIT));
        assert!(left.keep(&batch, 2, collateral(1), LIMIT));
        assert!(!left.keep(&batch, 3, stored(1), LIMIT));

        let mut back = BTreeMap::new();
        left.release(&mut back);
        assert_eq!(back.len(), 1);
        let open = batch.open_records().map(|(index, _)| index);
        assert_eq!(open.collect::<Vec<_>>(), [0, 1, 3]);
    }

    #[test]
    fn small_records_of_a_batch_that_is_too_large_come_back() {
        let records = vec![Record::new(""), Record::new(vec![0; 2_000])];
        let batch = Arc::new(Batch::new(records, Instant::now(), |_| Ok(())));
        batch.take_turn(1);
        let refused = Report::Failed {
            partition: 0,
            code: Raw::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE as i32,
            maybe_stored: false,
        };
        let mut left = CollateralRecords::default();
        assert!(!left.keep(&batch, 1, refused, LIMIT), "it was alone");
        assert!(!left.needs_smaller_batches());
        assert!(left.keep(&batch, 0, refused, LIMIT));
        assert!(left.needs_smaller_batches());
        let mut back = BTreeMap::new();
        left.release(&mut back);
        assert_eq!(back.len(), 1);
    }
}
