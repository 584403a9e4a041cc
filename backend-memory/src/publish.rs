//! Exactly-once publishing: records and progress, stored in one step.
//!
//! Everything is checked before anything is stored, under one lock, and stored as one entry of
//! the journal. No reader and no reopened broker ever sees a part of it.

use std::collections::BTreeMap;

use millstream_core::Record;
use millstream_core::driver::CheckpointUpdate;
use tokio::time::Instant;

use crate::broker::BrokerState;
use crate::error::BrokerError;
use crate::faults::plan::SendFault;
use crate::ids::{GroupId, MemberId, PartitionId, StreamId};
use crate::journal::{JournalEntry, JournalRecord, OffsetCommit};

/// The records and progress that a member stores in one step.
pub(crate) struct PublishRequest<'a> {
    pub(crate) group: GroupId,
    pub(crate) member: MemberId,
    pub(crate) stream: &'a str,
    pub(crate) records: &'a [Record],
    pub(crate) updates: &'a [CheckpointUpdate],
}

/// The first result of a request.
pub(crate) enum PublishOutcome {
    Done(Result<(), BrokerError>),
    /// A fault delays it.
    Delayed {
        send: u64,
        until: Instant,
    },
}

impl PublishRequest<'_> {
    pub(crate) fn start(&self, state: &mut BrokerState, now: Instant) -> PublishOutcome {
        if self.records.is_empty() {
            return PublishOutcome::Done(self.store(state, None, now));
        }
        let send = state.faults.count_sends(1);
        match state.faults.delay(send, 1, now) {
            Some(until) => PublishOutcome::Delayed { send, until },
            None => PublishOutcome::Done(self.store(state, Some(send), now)),
        }
    }

    /// Stores the request. `send` is its number among the sends, if it has records.
    pub(crate) fn store(
        &self,
        state: &mut BrokerState,
        send: Option<u64>,
        now: Instant,
    ) -> Result<(), BrokerError> {
        state.rules.check_publish()?;
        let fault = send.and_then(|send| state.faults.send_fault(send, now));
        let is_refused = state.faults.refuses_publish();
        let commits = self.check_updates(state)?;
        let stream = state.catalog.id(self.stream)?;
        self.check_records(state)?;
        if let Some(SendFault::Refused(error)) = fault {
            return Err(error);
        }
        if is_refused {
            return Err(BrokerError::CheckpointLost);
        }
        let records = self.route(state, stream, now)?;
        state.commit(JournalEntry::Published {
            group: self.group,
            commits,
            stream,
            records,
        })?;
        if !state.retention.keeps_everything() {
            state.trim_stream(stream, now);
        }
        Ok(())
    }

    /// Rejects the whole request if the member does not own one of its partitions.
    fn check_updates(&self, state: &BrokerState) -> Result<Vec<OffsetCommit>, BrokerError> {
        let mut commits = Vec::with_capacity(self.updates.len());
        let mut fenced = 0;
        for update in self.updates {
            match state.check_update(self.group, self.member, update) {
                Ok(commit) => commits.push(commit),
                Err(BrokerError::Fenced) => fenced += 1,
                Err(error) => return Err(error),
            }
        }
        match fenced {
            0 => Ok(commits),
            all if all == self.updates.len() => Err(BrokerError::Fenced),
            // `Lost` for the other partitions is queued for the member. `Fenced` would make the member drop all
            // partitions of the request, including those that the group still assigns to it.
            _ => Err(BrokerError::PartlyFenced),
        }
    }

    fn check_records(&self, state: &BrokerState) -> Result<(), BrokerError> {
        for record in self.records {
            state.rules.check(record, record.size())?;
        }
        Ok(())
    }

    /// Determines partition and time of each record and charges the rate limits. If one limit does
    /// not admit all of its records, none is charged.
    fn route(
        &self,
        state: &mut BrokerState,
        id: StreamId,
        now: Instant,
    ) -> Result<Vec<JournalRecord>, BrokerError> {
        let millis = state.clock.millis(now);
        let since_start = now.saturating_duration_since(state.clock.started());
        let stream = state
            .catalog
            .get_mut(id)
            .ok_or(BrokerError::StreamDeleted)?;
        let mut records = Vec::with_capacity(self.records.len());
        let mut loads: BTreeMap<PartitionId, (usize, usize)> = BTreeMap::new();
        for record in self.records {
            let partition = stream.route(record.key.as_deref());
            let stored_at = stream.get(partition)?.log.stored_at(millis);
            records.push(JournalRecord::from_record(partition, record, stored_at));
            let load = loads.entry(partition).or_default();
            *load = (load.0 + 1, load.1 + record.size());
        }
        let mut charged = Vec::with_capacity(loads.len());
        for (partition, (count, size)) in loads {
            let mut rate = stream.get(partition)?.rate;
            if !rate.try_acquire(&state.rate_limit, count, size, since_start) {
                return Err(BrokerError::RateExceeded);
            }
            charged.push((partition, rate));
        }
        for (partition, rate) in charged {
            stream.partitions[partition as usize].rate = rate;
        }
        Ok(records)
    }
}
