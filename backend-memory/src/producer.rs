//! The way of records into one stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use millstream::driver::{self, Limits, Pipelining, Rejected};
use millstream::planted::{self, Bug};
use millstream::{Error, Placed, Position, Record, Result};
use tokio::time::Instant;

use crate::broker::{Shared, State, wake};
use crate::faults::SendFault;
use crate::journal::{Change, StoredRecord};
use crate::refusal::Refusal;
use crate::stream::{Catalog, PartitionId, StreamId};

const OPERATION: &str = "send";

#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stream: StreamId,
    pub(crate) name: Arc<str>,
    pub(crate) limits: Limits,
}

#[async_trait]
impl driver::Producer for Producer {
    fn limits(&self) -> Limits {
        self.limits
    }

    /// One call, since the broker answers at once: a second call under way would only take records from the first.
    fn pipelining(&self) -> Pipelining {
        Pipelining::ByKey { calls: 1 }
    }

    async fn send(&self, records: Vec<Record>) -> Vec<Result<Placed, Rejected>> {
        let stored = self.shared.with(|state, now| {
            let first = state.faults.count_sends(records.len());
            match state.faults.delay(first, records.len(), now) {
                None => Ok(self.store(state, first, records, now)),
                Some(until) => Err((first, records, until)),
            }
        });
        match stored {
            Ok(answers) => answers,
            Err((first, records, until)) => {
                tokio::time::sleep_until(until).await;
                self.shared
                    .with(|state, now| self.store(state, first, records, now))
            }
        }
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl Producer {
    fn store(
        &self,
        state: &mut State,
        first: u64,
        records: Vec<Record>,
        now: Instant,
    ) -> Vec<Result<Placed, Rejected>> {
        let mut call = Call {
            failed: BTreeSet::new(),
            before: BTreeMap::new(),
            journal: state.journal.is_some().then(Vec::new),
            journaled: Vec::new(),
            answers: Vec::with_capacity(records.len()),
            last: (first % 7 == 0).then(|| records.len().saturating_sub(1)),
        };
        for (index, record) in (first..).zip(records) {
            let fault = state.faults.send_fault(index, now);
            let answer = self.store_one(state, &mut call, record, fault, now);
            call.answers.push(answer);
        }
        self.finish(state, call, now)
    }

    #[inline]
    fn store_one(
        &self,
        state: &mut State,
        call: &mut Call,
        record: Record,
        fault: Option<SendFault>,
        now: Instant,
    ) -> Result<Placed, Rejected> {
        let size = record.size();
        let refusal = self.refusal(&state.catalog, call, &record, size, &fault);
        if let Some(refusal) = refusal {
            return Err(self.reject(call, record, &refusal));
        }
        let millis = state.clock.millis(now);
        let Some(stream) = state.catalog.get_mut(self.stream) else {
            return Err(self.reject(call, record, &Refusal::StreamDeleted));
        };
        let id = stream.route(record.key.as_deref());
        let partition = &mut stream.partitions[id as usize];
        let since_start = now.saturating_duration_since(state.clock.started());
        if !state.allowance.is_none() && !partition.rate.take(&state.allowance, size, since_start) {
            return Err(self.reject(call, record, &Refusal::RateExceeded));
        }
        if call.journal.is_some() || !state.keep.everything() {
            call.before.entry(id).or_insert(partition.log.end());
        }
        if planted::is(Bug::ReceiptBeforeStored) && call.last == Some(call.answers.len()) {
            return Ok(Placed::new(
                partition.name.clone(),
                Position::from(partition.log.end()),
            ));
        }
        let unanswered = matches!(fault, Some(SendFault::Unanswered)).then(|| record.clone());
        let offset = partition.log.append(record, millis);
        if let Some(journal) = &mut call.journal {
            journal.extend(
                partition
                    .log
                    .get(offset)
                    .map(|entry| StoredRecord::new(id, entry)),
            );
            call.journaled.push(call.answers.len());
        }
        let placed = Placed::new(partition.name.clone(), Position::from(offset));
        if !partition.waiters.is_empty() {
            let waiters = std::mem::take(&mut partition.waiters);
            wake(&mut state.groups, (self.stream, id), &waiters);
        }
        match unanswered {
            Some(record) => {
                let refusal = Refusal::Injected(millstream::ErrorKind::Timeout);
                Err(self.reject(call, record, &refusal))
            }
            None => Ok(placed),
        }
    }

    fn refusal(
        &self,
        catalog: &Catalog,
        call: &Call,
        record: &Record,
        size: usize,
        fault: &Option<SendFault>,
    ) -> Option<Refusal> {
        let key = record.key.as_ref();
        if !call.failed.is_empty() && key.is_some_and(|key| call.failed.contains(key)) {
            return Some(Refusal::EarlierFailed);
        }
        if catalog.get(self.stream).is_none() {
            return Some(Refusal::StreamDeleted);
        }
        let key_bytes = key.map_or(0, Bytes::len);
        if key_bytes > self.limits.key_bytes {
            return Some(Refusal::KeyTooLong {
                size: key_bytes,
                limit: self.limits.key_bytes,
            });
        }
        if size > self.limits.record_bytes {
            return Some(Refusal::RecordTooLarge {
                size,
                limit: self.limits.record_bytes,
            });
        }
        match fault {
            Some(SendFault::Refused(refusal)) => Some(refusal.clone()),
            _ => None,
        }
    }

    fn reject(&self, call: &mut Call, record: Record, refusal: &Refusal) -> Rejected {
        if let Some(key) = &record.key {
            call.failed.insert(key.clone());
        }
        Rejected {
            record,
            error: self.error(refusal),
        }
    }

    fn error(&self, refusal: &Refusal) -> Error {
        refusal.during(OPERATION).with_stream(self.name.clone())
    }

    /// Writes what was stored to the journal, or takes it back, and applies retention.
    fn finish(&self, state: &mut State, call: Call, now: Instant) -> Vec<Result<Placed, Rejected>> {
        let Call {
            before,
            journal,
            journaled,
            mut answers,
            ..
        } = call;
        let written = match journal {
            Some(records) if !records.is_empty() => {
                let change = Change::Stored {
                    stream: self.stream,
                    records,
                };
                state.write(&change).map_err(|refusal| (refusal, change))
            }
            _ => Ok(()),
        };
        let millis = state.clock.millis(now);
        let failed = written.err();
        for (id, end) in before {
            if let Some(partition) = state.catalog.partition_mut((self.stream, id)) {
                match &failed {
                    Some(_) => partition.log.truncate(end),
                    None => partition.log.trim(state.keep, millis),
                }
            }
        }
        if let Some((refusal, change)) = failed {
            for (index, record) in journaled.into_iter().zip(change.into_records()) {
                let error = self.error(&refusal);
                answers[index] = Err(Rejected { record, error });
            }
        }
        answers
    }
}

/// What is known of one call of `send` while it goes on.
struct Call {
    /// Keys of which no further record may be stored in this call.
    failed: BTreeSet<Bytes>,
    /// Where the touched partitions ended before, if that matters.
    before: BTreeMap<PartitionId, u64>,
    journal: Option<Vec<StoredRecord>>,
    /// Which answer each record of `journal` belongs to.
    journaled: Vec<usize>,
    answers: Vec<Result<Placed, Rejected>>,
    /// The last record of every seventh call or so, for a planted bug.
    last: Option<usize>,
}
