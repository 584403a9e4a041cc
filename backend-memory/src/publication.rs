//! Records and the progress behind them, stored as one.
//!
//! All is checked before anything is stored, under the one lock, and then it is one change of the
//! journal. So nobody sees half of it, and neither does a broker that is opened again.

use std::collections::BTreeMap;

use millstream_core::driver::CheckpointUpdate;
use millstream_core::{Record, Result};
use tokio::time::Instant;

use crate::broker::State;
use crate::ids::{GroupId, MemberId, PartitionId, StreamId};
use crate::journal::{Change, Marked, StoredRecord};
use crate::pending::SendFault;
use crate::producer::check_sizes;
use crate::refusal::Refusal;

/// What a member wants to have stored in one step.
pub(crate) struct Publication<'a> {
    pub(crate) group: GroupId,
    pub(crate) member: MemberId,
    pub(crate) stream: &'a str,
    pub(crate) records: &'a [Record],
    pub(crate) marks: &'a [CheckpointUpdate],
}

/// How far a publication came at once.
pub(crate) enum Begun {
    Done(Result<(), Refusal>),
    /// Held back by a fault until then: the send of this number.
    Delayed(u64, Instant),
}

impl Publication<'_> {
    pub(crate) fn begin(&self, state: &mut State, now: Instant) -> Begun {
        if self.records.is_empty() {
            return Begun::Done(self.store(state, None, now));
        }
        let send = state.faults.count_sends(1);
        match state.faults.delay(send, 1, now) {
            Some(until) => Begun::Delayed(send, until),
            None => Begun::Done(self.store(state, Some(send), now)),
        }
    }

    /// Stores it. `send` is its number among the sends, if it has records.
    pub(crate) fn store(
        &self,
        state: &mut State,
        send: Option<u64>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let fault = send.and_then(|send| state.faults.send_fault(send, now));
        let refused = state.faults.refuses_publication();
        let marks = self.check_marks(state)?;
        let stream = state.catalog.id(self.stream)?;
        self.check_limits(state)?;
        if let Some(SendFault::Refused(refusal)) = fault {
            return Err(refusal);
        }
        if refused {
            return Err(Refusal::CheckpointLost);
        }
        let records = self.place(state, stream, now)?;
        state.commit(Change::Published {
            group: self.group,
            marks,
            stream,
            records,
        })?;
        if !state.keep.everything() {
            state.trim_stream(stream, now);
        }
        Ok(())
    }

    /// The fence: one partition that is not the member's is enough to refuse all.
    fn check_marks(&self, state: &State) -> Result<Vec<Marked>, Refusal> {
        let mut marked = Vec::with_capacity(self.marks.len());
        let mut fenced = 0;
        for mark in self.marks {
            match state.check_mark(self.group, self.member, mark) {
                Ok(change) => marked.push(change),
                Err(Refusal::Fenced) => fenced += 1,
                Err(refusal) => return Err(refusal),
            }
        }
        match fenced {
            0 => Ok(marked),
            all if all == self.marks.len() => Err(Refusal::Fenced),
            // The lost ones are in the member's mail. Said to be fenced, the others would be dropped
            // by a member that the group takes for their owner.
            _ => Err(Refusal::PartlyFenced),
        }
    }

    fn check_limits(&self, state: &State) -> Result<(), Refusal> {
        for record in self.records {
            let limits = &state.limits;
            check_sizes(record, record.size(), limits.record_bytes, limits.key_bytes)?;
        }
        Ok(())
    }

    /// Gives each record its partition and its time, and uses up the rates. A rate that does not
    /// take all leaves all of them as they were.
    fn place(
        &self,
        state: &mut State,
        id: StreamId,
        now: Instant,
    ) -> Result<Vec<StoredRecord>, Refusal> {
        let millis = state.clock.millis(now);
        let since_start = now.saturating_duration_since(state.clock.started());
        let stream = state.catalog.get_mut(id).ok_or(Refusal::StreamDeleted)?;
        let mut placed = Vec::with_capacity(self.records.len());
        let mut loads: BTreeMap<PartitionId, (usize, usize)> = BTreeMap::new();
        for record in self.records {
            let partition = stream.route(record.key.as_deref());
            let stored_at = stream.get(partition)?.log.stored_at(millis);
            placed.push(StoredRecord::of(partition, record, stored_at));
            let load = loads.entry(partition).or_default();
            *load = (load.0 + 1, load.1 + record.size());
        }
        let mut rates = Vec::with_capacity(loads.len());
        for (partition, (count, size)) in loads {
            let mut rate = stream.get(partition)?.rate;
            if !rate.take(&state.allowance, count, size, since_start) {
                return Err(Refusal::RateExceeded);
            }
            rates.push((partition, rate));
        }
        for (partition, rate) in rates {
            stream.partitions[partition as usize].rate = rate;
        }
        Ok(placed)
    }
}
