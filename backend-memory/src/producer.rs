//! The producer of one stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millstream_core::driver::{self, Pipelining, Rejected, StreamLimits};
use millstream_core::failpoint;
use millstream_core::{Error, ErrorKind, Position, Record, RecordMetadata, Result};
use tokio::time::Instant;

use crate::broker::{Broker, BrokerState, wake};
use crate::coordinator::GroupCoordinator;
use crate::error::BrokerError;
use crate::faults::plan::SendFault;
use crate::ids::{PartitionId, StreamId};
use crate::journal::{JournalEntry, JournalRecord};
use crate::rate_limit::RateLimit;
use crate::rules::StreamRules;
use crate::stream::Stream;

#[derive(Debug)]
pub(crate) struct MemoryProducer {
    pub(crate) broker: Arc<Broker>,
    pub(crate) stream: StreamId,
    pub(crate) name: Arc<str>,
    pub(crate) rules: StreamRules,
}

#[async_trait]
impl driver::Producer for MemoryProducer {
    fn limits(&self) -> StreamLimits {
        self.rules.limits()
    }

    /// Returns one call in flight: the broker responds at once, so a second call would only split batches.
    fn pipelining(&self) -> Pipelining {
        Pipelining::ByKey { calls: 1 }
    }

    fn validate(&self, record: &Record) -> Result<()> {
        let checked = self.rules.check(record, record.size());
        checked.map_err(|error| self.error(&error))
    }

    fn route(&self, _record: &Record) -> Option<u64> {
        None
    }

    async fn send(&self, records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>> {
        let sent = self.broker.with(|state, now| {
            let first = state.faults.count_sends(records.len());
            match state.faults.delay(first, records.len(), now) {
                None => Ok(self.store(state, first, records, now)),
                Some(until) => Err((first, records, until)),
            }
        });
        match sent {
            Ok(results) => results,
            Err((first, records, until)) => {
                tokio::time::sleep_until(until).await;
                self.broker
                    .with(|state, now| self.store(state, first, records, now))
            }
        }
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl MemoryProducer {
    fn store(
        &self,
        state: &mut BrokerState,
        first: u64,
        records: Vec<Record>,
        now: Instant,
    ) -> Vec<Result<RecordMetadata, Rejected>> {
        let millis = state.clock.millis(now);
        let Some(stream) = state.catalog.get_mut(self.stream) else {
            return Rejected::all(records, &self.error(&BrokerError::StreamDeleted));
        };
        let mut batch = AppendBatch {
            producer: self,
            stream,
            groups: &mut state.groups,
            rate_limit: (!state.rate_limit.is_none()).then_some(state.rate_limit),
            millis,
            since_start: now.saturating_duration_since(state.clock.started()),
            failed_keys: BTreeSet::new(),
            ends_before: (state.journal.is_some() || !state.retention.keeps_everything())
                .then(BTreeMap::new),
            journal: state.journal.is_some().then(Vec::new),
            journal_results: Vec::new(),
            results: Vec::with_capacity(records.len()),
            last: (first % 7 == 0).then(|| records.len().saturating_sub(1)),
        };
        for (n, record) in (first..).zip(records) {
            let fault = state.faults.send_fault(n, now);
            batch.append(record, fault);
        }
        let appended = AppendedBatch {
            ends_before: batch.ends_before.unwrap_or_default(),
            journal: batch.journal.unwrap_or_default(),
            journal_results: batch.journal_results,
            results: batch.results,
        };
        self.finish(state, appended, millis)
    }

    /// Writes appended records to the journal, or removes them if that fails, and applies the
    /// retention policy.
    fn finish(
        &self,
        state: &mut BrokerState,
        mut appended: AppendedBatch,
        millis: i64,
    ) -> Vec<Result<RecordMetadata, Rejected>> {
        let mut failed = None;
        if !appended.journal.is_empty() {
            let entry = JournalEntry::Appended {
                stream: self.stream,
                records: appended.journal,
            };
            if let Err(error) = state.write(&entry) {
                failed = Some((error, entry));
            }
        }
        for (id, end) in appended.ends_before {
            if let Some(partition) = state.catalog.partition_mut((self.stream, id)) {
                match &failed {
                    Some(_) => partition.log.truncate(end),
                    None => partition.log.trim(state.retention, millis),
                }
            }
        }
        if let Some((error, entry)) = failed {
            let records = appended.journal_results.into_iter();
            for (index, record) in records.zip(entry.into_records()) {
                appended.results[index] = Err(self.reject(record, &error));
            }
        }
        appended.results
    }

    fn reject(&self, record: Record, error: &BrokerError) -> Rejected {
        Rejected::new(record, self.error(error))
    }

    fn error(&self, error: &BrokerError) -> Error {
        error.during("send").with_stream(self.name.clone())
    }
}

/// The records that one call of `send` has appended.
struct AppendedBatch {
    /// The ends of the partitions before the call, if they may be needed.
    ends_before: BTreeMap<PartitionId, u64>,
    journal: Vec<JournalRecord>,
    /// The index in `results` of each record of `journal`.
    journal_results: Vec<usize>,
    results: Vec<Result<RecordMetadata, Rejected>>,
}

/// One call of `send` in progress, with the state that its records share.
struct AppendBatch<'a> {
    producer: &'a MemoryProducer,
    stream: &'a mut Stream,
    groups: &'a mut [GroupCoordinator],
    rate_limit: Option<RateLimit>,
    millis: i64,
    since_start: Duration,
    /// Keys with a failed record: no later record of them may be stored in this call.
    failed_keys: BTreeSet<Bytes>,
    ends_before: Option<BTreeMap<PartitionId, u64>>,
    journal: Option<Vec<JournalRecord>>,
    journal_results: Vec<usize>,
    results: Vec<Result<RecordMetadata, Rejected>>,
    /// The last record of about every seventh call, for a failpoint.
    last: Option<usize>,
}

impl AppendBatch<'_> {
    #[inline]
    fn append(&mut self, record: Record, fault: Option<SendFault>) {
        let size = record.size();
        if let Err(error) = self.check(&record, size, &fault) {
            return self.refuse(record, &error);
        }
        let id = self.stream.route(record.key.as_deref());
        let partition = &mut self.stream.partitions[id as usize];
        if let Some(limit) = &self.rate_limit {
            if !partition.rate.try_acquire(limit, 1, size, self.since_start) {
                return self.refuse(record, &BrokerError::RateExceeded);
            }
        }
        let offset = partition.log.end();
        let metadata = RecordMetadata::new(partition.name.clone(), Position::from(offset));
        if failpoint!(ReceiptBeforeStored) && self.last == Some(self.results.len()) {
            return self.results.push(Ok(metadata));
        }
        if let Some(ends) = &mut self.ends_before {
            ends.entry(id).or_insert(offset);
        }
        let response_lost = fault.map(|_| record.clone());
        partition.log.append(record, self.millis);
        if let (Some(journal), Some(entry)) = (&mut self.journal, partition.log.get(offset)) {
            journal.push(JournalRecord::from_log_entry(id, entry));
            self.journal_results.push(self.results.len());
        }
        if !partition.waiters.is_empty() {
            wake(self.groups, (self.producer.stream, id), &partition.waiters);
            partition.waiters.clear();
        }
        match response_lost {
            None => self.results.push(Ok(metadata)),
            Some(record) => self.refuse(record, &BrokerError::Injected(ErrorKind::Timeout)),
        }
    }

    /// Checks everything except the rate limit of the record's partition.
    fn check(
        &self,
        record: &Record,
        size: usize,
        fault: &Option<SendFault>,
    ) -> Result<(), BrokerError> {
        let key = record.key.as_ref();
        if !self.failed_keys.is_empty() && key.is_some_and(|key| self.failed_keys.contains(key)) {
            return Err(BrokerError::EarlierFailed);
        }
        self.producer.rules.check(record, size)?;
        match fault {
            Some(SendFault::Refused(error)) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    #[cold]
    fn refuse(&mut self, record: Record, error: &BrokerError) {
        if let Some(key) = &record.key {
            self.failed_keys.insert(key.clone());
        }
        self.results.push(Err(self.producer.reject(record, error)));
    }
}
