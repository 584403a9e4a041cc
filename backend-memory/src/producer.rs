//! The way of records into one stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millstream_core::driver::{self, Pipelining, Rejected, StreamLimits};
use millstream_core::failpoint;
use millstream_core::{ErrorKind, Position, Record, RecordMetadata, Result};
use tokio::time::Instant;

use crate::broker::{Shared, State, wake};
use crate::group::Group;
use crate::ids::{PartitionId, StreamId};
use crate::journal::{Change, StoredRecord};
use crate::pending::SendFault;
use crate::rate::Allowance;
use crate::refusal::Refusal;
use crate::stream::Stream;

#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stream: StreamId,
    pub(crate) name: Arc<str>,
    pub(crate) limits: StreamLimits,
}

#[async_trait]
impl driver::Producer for Producer {
    fn limits(&self) -> StreamLimits {
        self.limits
    }

    /// One call, since the broker answers at once: a second call under way would only take records
    /// from the first.
    fn pipelining(&self) -> Pipelining {
        Pipelining::ByKey { calls: 1 }
    }

    async fn send(&self, records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>> {
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
    ) -> Vec<Result<RecordMetadata, Rejected>> {
        let millis = state.clock.millis(now);
        let Some(stream) = state.catalog.get_mut(self.stream) else {
            let refused = |record| Err(self.reject(record, &Refusal::StreamDeleted));
            return records.into_iter().map(refused).collect();
        };
        let mut call = Call {
            producer: self,
            stream,
            groups: &mut state.groups,
            allowance: (!state.allowance.is_none()).then_some(state.allowance),
            millis,
            since_start: now.saturating_duration_since(state.clock.started()),
            failed: BTreeSet::new(),
            before: (state.journal.is_some() || !state.keep.everything()).then(BTreeMap::new),
            journal: state.journal.is_some().then(Vec::new),
            journaled: Vec::new(),
            answers: Vec::with_capacity(records.len()),
            last: (first % 7 == 0).then(|| records.len().saturating_sub(1)),
        };
        for (n, record) in (first..).zip(records) {
            let fault = state.faults.send_fault(n, now);
            call.store(record, fault);
        }
        let stored = Stored {
            before: call.before.unwrap_or_default(),
            journal: call.journal.unwrap_or_default(),
            journaled: call.journaled,
            answers: call.answers,
        };
        self.finish(state, stored, millis)
    }

    /// Writes what was stored to the journal, or takes it back, and applies retention.
    fn finish(
        &self,
        state: &mut State,
        mut stored: Stored,
        millis: i64,
    ) -> Vec<Result<RecordMetadata, Rejected>> {
        let mut failed = None;
        if !stored.journal.is_empty() {
            let change = Change::Stored {
                stream: self.stream,
                records: stored.journal,
            };
            if let Err(refusal) = state.write(&change) {
                failed = Some((refusal, change));
            }
        }
        for (id, end) in stored.before {
            if let Some(partition) = state.catalog.partition_mut((self.stream, id)) {
                match &failed {
                    Some(_) => partition.log.truncate(end),
                    None => partition.log.trim(state.keep, millis),
                }
            }
        }
        if let Some((refusal, change)) = failed {
            for (index, record) in stored.journaled.into_iter().zip(change.into_records()) {
                stored.answers[index] = Err(self.reject(record, &refusal));
            }
        }
        stored.answers
    }

    fn reject(&self, record: Record, refusal: &Refusal) -> Rejected {
        Rejected {
            record,
            error: refusal.during("send").with_stream(self.name.clone()),
        }
    }
}

/// What one call of `send` has done in the logs.
struct Stored {
    /// Where the touched partitions ended before, if that matters.
    before: BTreeMap<PartitionId, u64>,
    journal: Vec<StoredRecord>,
    /// Which answer each record of `journal` belongs to.
    journaled: Vec<usize>,
    answers: Vec<Result<RecordMetadata, Rejected>>,
}

/// One call of `send` while it goes on, with all that is the same for each of its records.
struct Call<'a> {
    producer: &'a Producer,
    stream: &'a mut Stream,
    groups: &'a mut [Group],
    allowance: Option<Allowance>,
    millis: i64,
    since_start: Duration,
    /// Keys of which no further record may be stored in this call.
    failed: BTreeSet<Bytes>,
    before: Option<BTreeMap<PartitionId, u64>>,
    journal: Option<Vec<StoredRecord>>,
    journaled: Vec<usize>,
    answers: Vec<Result<RecordMetadata, Rejected>>,
    /// The last record of every seventh call or so, for a planted bug.
    last: Option<usize>,
}

impl Call<'_> {
    #[inline]
    fn store(&mut self, record: Record, fault: Option<SendFault>) {
        let size = record.size();
        if let Err(refusal) = self.check(&record, size, &fault) {
            return self.refuse(record, &refusal);
        }
        let id = self.stream.route(record.key.as_deref());
        let partition = &mut self.stream.partitions[id as usize];
        if let Some(allowance) = &self.allowance {
            if !partition.rate.take(allowance, 1, size, self.since_start) {
                return self.refuse(record, &Refusal::RateExceeded);
            }
        }
        let offset = partition.log.end();
        let placed = RecordMetadata::new(partition.name.clone(), Position::from(offset));
        if failpoint!(ReceiptBeforeStored) && self.last == Some(self.answers.len()) {
            return self.answers.push(Ok(placed));
        }
        if let Some(before) = &mut self.before {
            before.entry(id).or_insert(offset);
        }
        let unanswered = fault.map(|_| record.clone());
        partition.log.append(record, self.millis);
        if let (Some(journal), Some(entry)) = (&mut self.journal, partition.log.get(offset)) {
            journal.push(StoredRecord::new(id, entry));
            self.journaled.push(self.answers.len());
        }
        if !partition.waiters.is_empty() {
            wake(self.groups, (self.producer.stream, id), &partition.waiters);
            partition.waiters.clear();
        }
        match unanswered {
            None => self.answers.push(Ok(placed)),
            Some(record) => self.refuse(record, &Refusal::Injected(ErrorKind::Timeout)),
        }
    }

    /// Whether a record may be stored; what its partition takes is not known yet.
    fn check(
        &self,
        record: &Record,
        size: usize,
        fault: &Option<SendFault>,
    ) -> Result<(), Refusal> {
        let limits = &self.producer.limits;
        let key = record.key.as_ref();
        if !self.failed.is_empty() && key.is_some_and(|key| self.failed.contains(key)) {
            return Err(Refusal::EarlierFailed);
        }
        check_sizes(record, size, limits.record_bytes, limits.key_bytes)?;
        match fault {
            Some(SendFault::Refused(refusal)) => Err(refusal.clone()),
            _ => Ok(()),
        }
    }

    #[cold]
    fn refuse(&mut self, record: Record, refusal: &Refusal) {
        if let Some(key) = &record.key {
            self.failed.insert(key.clone());
        }
        self.answers
            .push(Err(self.producer.reject(record, refusal)));
    }
}

/// Refuses a record of `size` bytes that is over the bounds of the broker.
#[inline]
pub(crate) fn check_sizes(
    record: &Record,
    size: usize,
    record_bytes: usize,
    key_bytes: usize,
) -> Result<(), Refusal> {
    let key = record.key.as_ref().map_or(0, Bytes::len);
    if key > key_bytes {
        return Err(Refusal::KeyTooLong {
            size: key,
            limit: key_bytes,
        });
    }
    if size > record_bytes {
        return Err(Refusal::RecordTooLarge {
            size,
            limit: record_bytes,
        });
    }
    Ok(())
}
