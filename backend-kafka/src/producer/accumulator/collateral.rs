//! Records whose request a broker rejected because of other records in it, or because they were too large
//! together. Such a rejection ends their client.
//!
//! They can be sent again unless a later request of their partition was stored. In that case they would be stored
//! behind records that were sent after them.

use std::collections::HashMap;
use std::sync::Arc;

use rdkafka::types::RDKafkaRespErr as Raw;

use crate::native::delivery::{Batch, Report};
use crate::producer::batch_limit::BatchLimit;

const DIFFERENT_RECORD: i32 = Raw::RD_KAFKA_RESP_ERR__INVALID_DIFFERENT_RECORD as i32;

#[derive(Default)]
pub(super) struct CollateralRecords {
    records: Vec<CollateralRecord>,
    /// Their partitions, and whether later records were stored there.
    overtaken: HashMap<i32, bool>,
    /// Whether any request was too large.
    too_large: bool,
}

struct CollateralRecord {
    partition: i32,
    batch: Arc<Batch>,
    index: usize,
}

impl CollateralRecords {
    /// Handles each report, in the order of arrival. Returns whether it keeps the record. `limit` is the size limit of
    /// the client's batches.
    pub(super) fn keep(
        &mut self,
        batch: &Arc<Batch>,
        index: usize,
        report: Report,
        limit: BatchLimit,
    ) -> bool {
        const TOO_LARGE: i32 = Raw::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE as i32;
        const TOO_LONG: i32 = Raw::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE as i32;
        match report {
            Report::Stored { partition, .. } => {
                if let Some(overtaken) = self.overtaken.get_mut(&partition) {
                    *overtaken = true;
                }
                false
            }
            Report::Failed {
                partition,
                code: DIFFERENT_RECORD,
                maybe_stored: false,
            } => {
                self.push(partition, batch, index);
                true
            }
            Report::Failed {
                partition,
                code: TOO_LARGE | TOO_LONG,
                maybe_stored: false,
            } if limit.may_share(batch.record(index)) => {
                self.too_large = true;
                self.push(partition, batch, index);
                true
            }
            Report::Failed { .. } => false,
        }
    }

    fn push(&mut self, partition: i32, batch: &Arc<Batch>, index: usize) {
        self.overtaken.entry(partition).or_default();
        self.records.push(CollateralRecord {
            partition,
            batch: batch.clone(),
            index,
        });
    }

    /// Returns whether there are records that must be sent in smaller batches.
    pub(super) fn needs_smaller_batches(&self) -> bool {
        self.too_large
    }

    /// Returns the batches of the records that can be sent again, and fails the other records.
    pub(super) fn release(self) -> Vec<Arc<Batch>> {
        let mut returned = Vec::new();
        for record in self.records {
            let CollateralRecord {
                partition,
                batch,
                index,
            } = record;
            if self.overtaken[&partition] {
                // This also applies to a record whose request was too large: the record itself was not too large.
                let report = Report::Failed {
                    partition,
                    code: DIFFERENT_RECORD,
                    maybe_stored: false,
                };
                batch.report(index, report);
                batch.settle_and_wake(1);
            } else {
                returned.push(batch);
            }
        }
        returned
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
            code: DIFFERENT_RECORD,
            maybe_stored: false,
        }
    }

    #[test]
    fn collateral_records_come_back_unless_later_ones_were_stored() {
        let batch = Batch::new(vec![Record::new(""); 4], Instant::now(), |_| Ok(()));
        let batch = Arc::new(batch);
        batch.take_turn(1);
        let mut records = CollateralRecords::default();
        // Records that were stored before do no harm.
        assert!(!records.keep(&batch, 0, stored(0), LIMIT));
        assert!(records.keep(&batch, 1, collateral(0), LIMIT));
        assert!(records.keep(&batch, 2, collateral(1), LIMIT));
        assert!(!records.keep(&batch, 3, stored(1), LIMIT));

        assert_eq!(records.release().len(), 1);
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
        let mut records = CollateralRecords::default();
        assert!(!records.keep(&batch, 1, refused, LIMIT), "it was alone");
        assert!(!records.needs_smaller_batches());
        assert!(records.keep(&batch, 0, refused, LIMIT));
        assert!(records.needs_smaller_batches());
        assert_eq!(records.release().len(), 1);
    }
}
