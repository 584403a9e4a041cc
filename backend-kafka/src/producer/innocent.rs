//! The records whose requests a broker refused for other records in them, which has ended their
//! client.
//!
//! They can be sent again unless a later request of their partition got through: then they would
//! come behind records that were sent after them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rdkafka::types::RDKafkaRespErr as Raw;

use crate::native::delivery::{Batch, Report};

#[derive(Default)]
pub(super) struct Innocent {
    records: Vec<(i32, Arc<Batch>, usize, Report)>,
    /// Their partitions, and whether later records were stored there.
    overtaken: HashMap<i32, bool>,
}

impl Innocent {
    /// Looks at each report in the order in which they come; takes those of innocent records.
    pub(super) fn takes(&mut self, batch: &Arc<Batch>, index: usize, report: Report) -> bool {
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
            Report::Failed { .. } => false,
        }
    }

    pub(super) fn come_back(self, back: &mut BTreeMap<u64, Arc<Batch>>) {
        for (partition, batch, index, report) in self.records {
            if self.overtaken[&partition] {
                batch.report(index, report);
                if let Some(complete) = batch.settle(1) {
                    complete.tell();
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

    fn stored(partition: i32) -> Report {
        Report::Stored {
            partition,
            offset: 1,
        }
    }

    fn innocent(partition: i32) -> Report {
        Report::Failed {
            partition,
            code: Raw::RD_KAFKA_RESP_ERR__INVALID_DIFFERENT_RECORD as i32,
            maybe_stored: false,
        }
    }

    #[test]
    fn innocent_records_come_back_unless_later_ones_were_stored() {
        let batch = Batch::new(vec![Record::new(""); 4], Instant::now(), |_| Ok(()));
        let batch = Arc::new(batch);
        batch.take_turn(1);
        let mut left = Innocent::default();
        // What was stored before is no harm.
        assert!(!left.takes(&batch, 0, stored(0)));
        assert!(left.takes(&batch, 1, innocent(0)));
        assert!(left.takes(&batch, 2, innocent(1)));
        assert!(!left.takes(&batch, 3, stored(1)));

        let mut back = BTreeMap::new();
        left.come_back(&mut back);
        assert_eq!(back.len(), 1);
        let open = batch.open_records().map(|(index, _)| index);
        assert_eq!(open.collect::<Vec<_>>(), [0, 1, 3]);
    }
}
