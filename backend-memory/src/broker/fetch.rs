//! Fetching: the events and records of a member.

use std::time::Duration;

use millstream_core::driver::Event;
use millstream_core::{Epoch, Lag, Partition, Position};
use tokio::time::Instant;

use super::BrokerState;
use crate::coordinator::{GroupMember, LAG_INTERVAL, MemberEvent, OwnedPartition};
use crate::error::BrokerError;
use crate::ids::{GroupId, MemberId, PartitionRef};
use crate::log::Log;

/// The limits that remain for a fetch.
struct FetchBudget {
    records: usize,
    bytes: u64,
}

/// The result of [`BrokerState::fetch`].
pub(crate) enum FetchResult {
    Events(Vec<Event>),
    /// There is nothing to return. The member must check again at `until`.
    Idle {
        until: Option<Instant>,
    },
}

impl BrokerState {
    pub(crate) fn fetch(
        &mut self,
        group: GroupId,
        member: MemberId,
        now: Instant,
    ) -> Result<FetchResult, BrokerError> {
        let found = self.member_mut(group, member)?;
        if found.deleted_stream.is_some() {
            return Err(BrokerError::StreamDeleted);
        }
        let mut events = Vec::new();
        while let Some(event) = self.member_mut(group, member)?.events.pop_front() {
            events.extend(self.driver_event(group, member, event, now)?);
        }
        let found = self.member_mut(group, member)?;
        let mut budget = FetchBudget {
            records: found.batch_records,
            bytes: found.batch_bytes,
        };
        while budget.records > 0 && budget.bytes > 0 {
            let Some(partition) = self.member_mut(group, member)?.ready.pop_front() else {
                break;
            };
            events.extend(self.read(group, member, partition, &mut budget, now)?);
        }
        let lag_due = self.report_lags(group, member, &mut events, now)?;
        if !events.is_empty() {
            return Ok(FetchResult::Events(events));
        }
        let until = self.deadline(group).into_iter().chain(lag_due).min();
        Ok(FetchResult::Idle { until })
    }

    /// Returns the events that a member derives from its own clock while a fault cuts it off: when its session is over,
    /// it has lost everything.
    pub(crate) fn fetch_cut_off(
        &mut self,
        group: GroupId,
        member: MemberId,
        now: Instant,
    ) -> Result<FetchResult, BrokerError> {
        let mut events = Vec::new();
        if self.member_mut(group, member)?.expired {
            while let Some(event) = self.member_mut(group, member)?.events.pop_front() {
                events.extend(self.driver_event(group, member, event, now)?);
            }
        }
        Ok(match events.is_empty() {
            true => FetchResult::Idle {
                until: self.deadline(group),
            },
            false => FetchResult::Events(events),
        })
    }

    pub(crate) fn member_mut(
        &mut self,
        group: GroupId,
        member: MemberId,
    ) -> Result<&mut GroupMember, BrokerError> {
        let found = self.groups[group].members.get_mut(&member);
        found.ok_or(BrokerError::MemberGone)
    }

    /// Converts a member's event to one of the driver. Returns `None` if it is outdated.
    fn driver_event(
        &mut self,
        group: GroupId,
        member: MemberId,
        event: MemberEvent,
        now: Instant,
    ) -> Result<Option<Event>, BrokerError> {
        match event {
            MemberEvent::Assigned(partition, epoch) => {
                let Some(name) = self.partition_name(partition) else {
                    return Ok(None);
                };
                let stream = self.catalog.get(partition.0);
                let stream_id = stream.map(|stream| stream.public_id.clone());
                let member = self.member_mut(group, member)?;
                let owned = member
                    .owned
                    .get_mut(&partition)
                    .filter(|owned| owned.epoch == epoch);
                let Some(owned) = owned else {
                    return Ok(None);
                };
                owned.announced = true;
                let next_offset = owned.next_offset;
                member.queue(partition);
                Ok(Some(Event::Assigned {
                    partition: name,
                    epoch: Epoch(epoch),
                    resume_after: next_offset.checked_sub(1).map(Position::from),
                    stream_id,
                }))
            }
            MemberEvent::Revoking(partitions, until) => {
                let member = self.member_mut(group, member)?;
                let is_current = |(partition, epoch): &(PartitionRef, u64)| {
                    member
                        .owned
                        .get(partition)
                        .is_some_and(|owned| owned.epoch == *epoch)
                };
                let partitions = partitions.into_iter().filter(is_current).collect();
                let partitions = self.with_names(partitions);
                Ok((!partitions.is_empty()).then(|| Event::Revoking {
                    partitions,
                    within: until.saturating_duration_since(now),
                }))
            }
            MemberEvent::Lost(partitions) => {
                let partitions = self.with_names(partitions);
                Ok((!partitions.is_empty()).then_some(Event::Lost { partitions }))
            }
        }
    }

    /// Reads the next records of a partition, or registers the member as a waiter.
    fn read(
        &mut self,
        group: GroupId,
        id: MemberId,
        partition: PartitionRef,
        budget: &mut FetchBudget,
        now: Instant,
    ) -> Result<Option<Event>, BrokerError> {
        let millis = self.clock.millis(now);
        let retention = self.retention;
        let Self {
            groups, catalog, ..
        } = self;
        let Some(member) = groups[group].members.get_mut(&id) else {
            return Err(BrokerError::MemberGone);
        };
        let (Some(owned), Some(stored)) = (
            member.owned.get_mut(&partition),
            catalog.partition_mut(partition),
        ) else {
            return Ok(None);
        };
        if !std::mem::take(&mut owned.queued) || owned.paused || owned.drain_until.is_some() {
            return Ok(None);
        }
        let log = &mut stored.log;
        log.trim(retention, millis);
        let name = stored.name.clone();
        let epoch = Epoch(owned.epoch);
        let event = if owned.next_offset < log.start() {
            let after = owned.next_offset.checked_sub(1).map(Position::from);
            owned.next_offset = log.start();
            Event::DataLoss {
                partition: name,
                epoch,
                after,
                earliest: Position::from(log.start()),
            }
        } else if owned.next_offset < log.end() {
            let (records, bytes) = log.read(owned.next_offset, budget.records, budget.bytes);
            budget.records -= records.len();
            budget.bytes = budget.bytes.saturating_sub(bytes);
            owned.next_offset += records.len() as u64;
            let lag = lag(log, owned.next_offset, millis);
            owned.reported_lag = Some(lag);
            let event = Event::Records {
                partition: name,
                epoch,
                records,
                lag,
            };
            if stored.open && owned.next_offset == log.end() {
                // Nothing is left, as its lag says. Another visit would only find that out.
                stored.wait(group, id);
                return Ok(Some(event));
            }
            event
        } else if !stored.open && !owned.ended {
            owned.ended = true;
            return Ok(Some(Event::Ended {
                partition: name,
                epoch,
            }));
        } else {
            if owned.ended {
                return Ok(None);
            }
            if owned.reported_lag.is_some() {
                stored.wait(group, id);
                return Ok(None);
            }
            // Without records, only this event reports that nothing is left.
            let lag = lag(log, owned.next_offset, millis);
            owned.reported_lag = Some(lag);
            Event::Lag {
                partition: name,
                epoch,
                lag,
            }
        };
        // It goes to the end of the queue, so that one partition with a backlog does not starve others.
        owned.queued = true;
        member.ready.push_back(partition);
        Ok(Some(event))
    }

    /// Reports the lag of paused partitions, which no records report: at most once per
    /// [`LAG_INTERVAL`], and only changes. Returns when the next report is due.
    fn report_lags(
        &mut self,
        group: GroupId,
        id: MemberId,
        events: &mut Vec<Event>,
        now: Instant,
    ) -> Result<Option<Instant>, BrokerError> {
        let member = self.member_mut(group, id)?;
        if member.paused == 0 {
            return Ok(None);
        }
        if now < member.lag_due {
            return Ok(Some(member.lag_due));
        }
        member.lag_due = now + LAG_INTERVAL;
        let lag_due = member.lag_due;
        let is_reported =
            |owned: &OwnedPartition| owned.announced && owned.paused && owned.drain_until.is_none();
        let mut paused: Vec<PartitionRef> = member
            .owned
            .iter()
            .filter(|(_, owned)| is_reported(owned))
            .map(|(partition, _)| *partition)
            .collect();
        paused.sort_unstable();
        let (millis, retention) = (self.clock.millis(now), self.retention);
        for partition in paused {
            let Some(stored) = self.catalog.partition_mut(partition) else {
                continue;
            };
            stored.log.trim(retention, millis);
            let name = stored.name.clone();
            let member = self.groups[group].members.get_mut(&id);
            let owned = member.and_then(|member| member.owned.get_mut(&partition));
            let Some(owned) = owned else { continue };
            let lag = lag(&stored.log, owned.next_offset, millis);
            let is_unchanged = match owned.reported_lag {
                Some(reported) => reported == lag,
                None => lag.records == Some(0),
            };
            owned.reported_lag = Some(lag);
            if !is_unchanged {
                events.push(Event::Lag {
                    partition: name,
                    epoch: Epoch(owned.epoch),
                    lag,
                });
            }
        }
        Ok(Some(lag_due))
    }

    fn partition_name(&self, partition: PartitionRef) -> Option<Partition> {
        let found = self.catalog.partition(partition);
        found.map(|found| found.name.clone())
    }

    fn with_names(&self, partitions: Vec<(PartitionRef, u64)>) -> Vec<(Partition, Epoch)> {
        let name = |(partition, epoch)| Some((self.partition_name(partition)?, Epoch(epoch)));
        partitions.into_iter().filter_map(name).collect()
    }
}

/// Returns the lag of a reader whose next offset is `next_offset`.
pub(super) fn lag(log: &Log, next_offset: u64, now: i64) -> Lag {
    let next_offset = next_offset.max(log.start());
    let age = log
        .get(next_offset)
        .map(|entry| now.saturating_sub(entry.stored_at));
    let age = age
        .and_then(|millis| u64::try_from(millis).ok())
        .unwrap_or(0);
    Lag {
        records: Some(log.end() - next_offset),
        time: Some(Duration::from_millis(age)),
    }
}
