//! The events that `next` of a member with a bug returns.

use std::mem;

use millstream_core::driver::Event;
use millstream_core::{Epoch, Lag, Start};

use super::MutantMembership;
use crate::bug::Bug;

impl MutantMembership {
    pub(super) fn note(&self, events: &[Event]) {
        let mut state = self.state();
        for event in events {
            match event {
                Event::Assigned {
                    partition, epoch, ..
                } => {
                    state.owned.insert(partition.clone(), *epoch);
                }
                Event::Records {
                    partition, records, ..
                } => {
                    let last = &mut state.last_records;
                    last.insert(partition.clone(), records.clone());
                }
                Event::Lost { partitions } => {
                    for (partition, _) in partitions {
                        state.owned.remove(partition);
                    }
                    state.was_cut_off |= self.cut_off().is_some();
                }
                _ => {}
            }
        }
    }

    /// Changes the events that `next` returns.
    pub(super) fn mutate(&self, events: Vec<Event>) -> Vec<Event> {
        let events = events.into_iter();
        let events = events.flat_map(|event| self.mutate_one(event)).collect();
        match self.backend.bug {
            Some(Bug::LostWaitsForRecords) => self.hold_back(events),
            _ => events,
        }
    }

    /// Holds back losses until records arrive.
    fn hold_back(&self, events: Vec<Event>) -> Vec<Event> {
        let mut state = self.state();
        let has_records = |event: &Event| matches!(event, Event::Records { .. });
        if events.iter().any(has_records) {
            return mem::take(&mut state.waits)
                .into_iter()
                .chain(events)
                .collect();
        }
        let is_loss = |event: &Event| matches!(event, Event::Lost { .. });
        let (lost, rest) = events.into_iter().partition(is_loss);
        let lost: Vec<Event> = lost;
        state.waits.extend(lost);
        rest
    }

    fn mutate_one(&self, mut event: Event) -> Vec<Event> {
        match (self.backend.bug, &mut event) {
            (Some(Bug::AssignedHasNoCheckpoint), Event::Assigned { resume_after, .. }) => {
                *resume_after = None;
            }
            (Some(Bug::DrainIsNotLimited), Event::Revoking { within, .. }) => {
                *within = self.options.drain.min(*within);
            }
            (
                Some(Bug::ProgressOutlivesItsStream),
                Event::Records {
                    partition, records, ..
                },
            ) => {
                let settled = self.settled.get(partition).copied();
                records.retain(|record| settled < Some(record.position));
                if records.is_empty() {
                    return Vec::new();
                }
            }
            (Some(Bug::FutureStartSkipsRecords), Event::Records { records, .. }) => {
                if let Start::At(time) = self.options.start {
                    records.retain(|record| record.timestamp >= time);
                }
                if records.is_empty() {
                    return Vec::new();
                }
            }
            (
                Some(Bug::EpochsRestart),
                Event::Assigned { epoch, .. } | Event::Records { epoch, .. },
            ) => *epoch = Epoch(1),
            (Some(Bug::FirstDataLossIsNotReported), Event::DataLoss { after: None, .. }) => {
                return Vec::new();
            }
            (Some(Bug::DataLossHasNoPosition), Event::DataLoss { after, .. }) => *after = None,
            (Some(Bug::LagIsNotReported), Event::Lag { .. }) => return Vec::new(),
            (Some(Bug::LagOfAPauseIsNotReported), Event::Lag { partition, .. })
                if self.state().paused.contains(partition) =>
            {
                return Vec::new();
            }
            (
                Some(Bug::EpochIsReused),
                Event::Assigned {
                    partition, epoch, ..
                },
            ) => {
                let mut state = self.state();
                *epoch = *state
                    .first_epochs
                    .entry(partition.clone())
                    .or_insert(*epoch);
            }
            (Some(Bug::MemberDoesNotJoinAgain), Event::Assigned { .. })
                if self.state().was_cut_off =>
            {
                return Vec::new();
            }
            (Some(Bug::LossIsReportedInPart), Event::Lost { partitions }) => partitions.truncate(1),
            (Some(Bug::LostLeaseIsRenewed), Event::Lost { partitions }) => {
                let renewed = partitions.clone().into_iter();
                let renewed = renewed.map(|(partition, epoch)| Event::Assigned {
                    partition,
                    epoch,
                    resume_after: None,
                    stream_id: None,
                });
                let renewed: Vec<Event> = renewed.collect();
                return [event].into_iter().chain(renewed).collect();
            }
            (Some(Bug::LagHasNoTime), Event::Lag { lag, .. } | Event::Records { lag, .. }) => {
                lag.time = None;
            }
            (Some(Bug::RecordsFollowRevoking), Event::Revoking { partitions, .. }) => {
                let state = self.state();
                let late = partitions.iter().filter_map(|(partition, epoch)| {
                    Some(Event::Records {
                        partition: partition.clone(),
                        epoch: *epoch,
                        records: state.last_records.get(partition)?.clone(),
                        lag: Lag::default(),
                    })
                });
                let late: Vec<Event> = late.collect();
                return [event].into_iter().chain(late).collect();
            }
            _ => {}
        }
        vec![event]
    }
}
