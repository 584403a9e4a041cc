//! A model of a librdkafka client and its broker, as the accumulator sees them.

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_core::Error;
use rdkafka::types::RDKafkaRespErr as Raw;

use super::super::{Accumulator, ClientReports};
use super::LIMIT;
use crate::native::delivery::{Batch, Disposition, Report};
use crate::native::partitioner;
use crate::native::record::ANY_PARTITION;

pub(super) const PARTITIONS: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// The delivery timeout of a client.
pub(super) const TIMEOUT: Duration = Duration::from_millis(300);

/// The records of each partition, in the order in which the broker has stored them: the turn of the call and the
/// index of the record.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) partitions: [Vec<(u64, usize)>; PARTITIONS.get()],
    /// Whether records of a call may be stored behind a failed one of their key: the broker knew nothing of the
    /// producer yet when it rejected a request, or librdkafka refused a record at once.
    pub(super) has_gaps: bool,
}

#[derive(Debug, Clone)]
struct HeldRecord {
    batch: Arc<Batch>,
    index: usize,
    deadline: Instant,
}

/// How the broker responds to the oldest request of a partition.
#[derive(Debug, Clone, Copy)]
pub(super) enum Response {
    Stored,
    /// One record is rejected, and the others of its request because of it.
    Rejected {
        record: usize,
        next_is_stored: bool,
    },
    TooLarge,
}

pub(super) struct SimulatedClient {
    queues: [VecDeque<HeldRecord>; PARTITIONS.get()],
    requests: [VecDeque<Vec<HeldRecord>>; PARTITIONS.get()],
    /// The records that the client has. Used to check that no record is handed over twice.
    held: BTreeSet<(u64, usize)>,
    next_partition: usize,
    /// The turns of the calls whose records it got.
    pub(super) taken: BTreeSet<u64>,
    pub(super) refuses_next: bool,
    pub(super) has_failed: bool,
    pub(super) reports: ClientReports,
}

impl SimulatedClient {
    pub(super) fn new() -> Self {
        Self {
            queues: Default::default(),
            requests: Default::default(),
            held: BTreeSet::new(),
            next_partition: 0,
            taken: BTreeSet::new(),
            refuses_next: false,
            has_failed: false,
            reports: ClientReports::new(LIMIT),
        }
    }

    pub(super) fn produce(
        &mut self,
        accumulator: &mut Accumulator,
        batch: &Arc<Batch>,
        indexes: &[usize],
        now: Instant,
        log: &mut Log,
    ) {
        self.taken.insert(batch.turn());
        batch.keep();
        for &index in indexes {
            assert!(is_open(batch, index), "a record with a result is sent");
            let refuses = std::mem::take(&mut self.refuses_next);
            if self.has_failed || refuses {
                let code = match self.has_failed {
                    true => Raw::RD_KAFKA_RESP_ERR__FATAL,
                    false => Raw::RD_KAFKA_RESP_ERR__QUEUE_FULL,
                };
                log.has_gaps |= refuses;
                let refused = failed(ANY_PARTITION, code);
                match accumulator.on_refused(batch, index, refused, now) {
                    Disposition::Answered => batch.settle_and_wake(1),
                    Disposition::Open => {}
                }
                continue;
            }
            let is_new = self.held.insert((batch.turn(), index));
            assert!(is_new, "a record is sent while the client has it");
            let partition = match &batch.record(index).key {
                Some(key) => partition_of(key),
                None => self.any_partition(),
            };
            self.queues[partition].push_back(HeldRecord {
                batch: batch.clone(),
                index,
                deadline: now + TIMEOUT,
            });
        }
    }

    fn any_partition(&mut self) -> usize {
        self.next_partition = (self.next_partition + 1) % PARTITIONS;
        self.next_partition
    }

    /// Sends up to this many records of a partition.
    pub(super) fn transmit(&mut self, partition: usize, records: usize) {
        let (queue, requests) = (&mut self.queues[partition], &mut self.requests[partition]);
        let records = records.min(queue.len());
        if records > 0 && requests.len() < 2 && !self.has_failed {
            requests.push_back(queue.drain(..records).collect());
        }
    }

    pub(super) fn respond(&mut self, partition: usize, response: Response, log: &mut Log) {
        let Some(request) = self.requests[partition].pop_front() else {
            return;
        };
        match response {
            Response::Stored => self.store(partition, request, log),
            Response::Rejected {
                record,
                next_is_stored,
            } => {
                let culprit = record % request.len();
                for (at, record) in request.into_iter().enumerate() {
                    let code = match at == culprit {
                        true => Raw::RD_KAFKA_RESP_ERR_INVALID_RECORD,
                        false => Raw::RD_KAFKA_RESP_ERR__INVALID_DIFFERENT_RECORD,
                    };
                    self.report(record, failed(partition as i32, code), None);
                }
                self.reject_others(partition, next_is_stored, log);
            }
            Response::TooLarge => {
                let too_large = Raw::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
                for record in request {
                    self.report(record, failed(partition as i32, too_large), None);
                }
                self.reject_others(partition, false, log);
            }
        }
    }

    /// Ends the client after a rejected request. Later requests of the partition are mostly out of sequence.
    fn reject_others(&mut self, partition: usize, next_is_stored: bool, log: &mut Log) {
        self.has_failed = true;
        if next_is_stored {
            if let Some(next) = self.requests[partition].pop_front() {
                log.has_gaps = true;
                self.store(partition, next, log);
            }
        }
        while let Some(request) = self.requests[partition].pop_back() {
            for record in request.into_iter().rev() {
                self.queues[partition].push_front(record);
            }
        }
    }

    fn store(&mut self, partition: usize, request: Vec<HeldRecord>, log: &mut Log) {
        for record in request {
            let of_partition = &mut log.partitions[partition];
            of_partition.push((record.batch.turn(), record.index));
            let stored = Report::Stored {
                partition: partition as i32,
                offset: of_partition.len() as i64 - 1,
            };
            self.report(record, stored, None);
        }
    }

    /// Fails records whose time is over and that are not in flight.
    pub(super) fn time_out(&mut self, now: Instant) {
        for partition in 0..PARTITIONS.get() {
            while let Some(record) = self.queues[partition].pop_front() {
                if record.deadline > now {
                    self.queues[partition].push_front(record);
                    break;
                }
                let timed_out = Raw::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT;
                self.report(record, failed(partition as i32, timed_out), None);
            }
        }
    }

    /// Fails records that are not in flight, since a broker does not know the topic.
    pub(super) fn miss_topic(&mut self) {
        self.has_failed = true;
        for partition in 0..PARTITIONS.get() {
            for record in std::mem::take(&mut self.queues[partition]) {
                let unknown = Raw::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC;
                self.report(record, failed(partition as i32, unknown), None);
            }
        }
    }

    /// Returns all records. Of the requests in flight in a partition, the first `responses` are stored and get a
    /// response; the next ones are stored if `lands`.
    pub(super) fn purge(
        &mut self,
        rejection: Option<&Error>,
        responses: usize,
        lands: bool,
        log: &mut Log,
    ) {
        for partition in 0..PARTITIONS.get() {
            for _ in 0..responses {
                self.respond(partition, Response::Stored, log);
            }
            for record in std::mem::take(&mut self.requests[partition])
                .into_iter()
                .flatten()
            {
                if lands {
                    log.partitions[partition].push((record.batch.turn(), record.index));
                }
                let purged = Report::Failed {
                    partition: partition as i32,
                    code: Raw::RD_KAFKA_RESP_ERR__PURGE_INFLIGHT as i32,
                    maybe_stored: true,
                };
                self.report(record, purged, rejection);
            }
            for record in std::mem::take(&mut self.queues[partition]) {
                let purged = Raw::RD_KAFKA_RESP_ERR__PURGE_QUEUE;
                self.report(record, failed(partition as i32, purged), rejection);
            }
        }
    }

    /// Drops all records, without reports.
    pub(super) fn release(self) {
        let requests = self.requests.into_iter().flatten().flatten();
        for record in self.queues.into_iter().flatten().chain(requests) {
            record.batch.settle_and_wake(1);
        }
    }

    fn report(&mut self, record: HeldRecord, report: Report, rejection: Option<&Error>) {
        let HeldRecord { batch, index, .. } = record;
        assert!(self.held.remove(&(batch.turn(), index)));
        assert!(is_open(&batch, index), "a record gets a second result");
        match self.reports.on_report(&batch, index, report, rejection) {
            Disposition::Answered => batch.settle_and_wake(1),
            Disposition::Open => {}
        }
    }
}

fn failed(partition: i32, code: Raw) -> Report {
    Report::Failed {
        partition,
        code: code as i32,
        maybe_stored: false,
    }
}

fn is_open(batch: &Batch, index: usize) -> bool {
    batch.open_records().any(|(open, _)| open == index)
}

pub(super) fn partition_of(key: &[u8]) -> usize {
    partitioner::murmur2(key, PARTITIONS)
}
