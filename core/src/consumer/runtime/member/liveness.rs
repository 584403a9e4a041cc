//! Checks what each partition waits for, and reports stalls.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::time::Instant;

use super::Member;
use crate::consumer::runtime::assignment::{Assignment, Leaving};
use crate::consumer::runtime::handler::Handler;
use crate::consumer::runtime::run::RunStatus;
use crate::consumer::runtime::stall::{CHECK_INTERVAL, Observation, PauseReason, StallEvent};
use crate::telemetry::event;
use crate::{Delivery, OldestUnsettled};

/// The maximum number of bytes of a key that are logged.
const KEY_BYTES: usize = 64;

impl<W: Handler> Member<W> {
    /// Returns when the next check is due, if there is anything to check.
    pub(super) fn next_check(&self) -> Option<Instant> {
        let watches = self.in_flight() > 0 || self.stall_reported;
        watches.then_some(self.check_at)
    }

    /// Checks the progress of all partitions, if it is due.
    pub(super) fn check_progress(&mut self) -> bool {
        if self.next_check().is_none_or(|due| due > self.now) {
            return false;
        }
        self.check_at = self.now + CHECK_INTERVAL;
        let at_watermark = self.runs_at_watermark();
        let mut reported = false;
        let mut events = Vec::new();
        for index in self.indexes() {
            let status = at_watermark.get(&index).copied();
            let paused = self.pause_reason(index);
            let assignment = &mut self.assignments[index];
            let oldest = assignment.oldest_unsettled();
            let first = assignment.first_unsettled();
            events.extend(
                assignment
                    .stall
                    .check(&Observation {
                        now: self.now,
                        watermark: oldest.is_some().then_some(first),
                        paused,
                        begun: status.map(|status| status.begun),
                        limit: self.options.stall_warning,
                    })
                    .into_iter()
                    .map(|event| (index, event)),
            );
            reported |= assignment.stall.is_reported();
            assignment.show_oldest(oldest.map(|delivery| to_stats(&delivery, status)));
        }
        self.stall_reported = reported;
        for (index, event) in events {
            self.report(index, event, at_watermark.get(&index).copied());
        }
        true
    }

    /// Returns the runs that hold a watermark, by the index of their assignment.
    fn runs_at_watermark(&self) -> HashMap<usize, RunStatus> {
        let in_flight = self
            .running
            .iter()
            .filter(|in_flight| self.owns(in_flight.index, &in_flight.ownership))
            .map(|in_flight| (in_flight.index, in_flight.status));
        let others = self.assignments.iter().filter_map(|(index, assignment)| {
            Some((index, RunStatus::of(assignment.first_run()?)))
        });
        in_flight
            .chain(others)
            .filter(|(index, status)| self.assignments[*index].first_unsettled() == status.first)
            .collect()
    }

    fn pause_reason(&self, index: usize) -> Option<PauseReason> {
        let assignment = &self.assignments[index];
        let reasons = [
            (
                assignment.paused.by_max_unsettled,
                PauseReason::MaxUnsettled,
            ),
            (assignment.paused.by_buffer, PauseReason::BufferBytes),
            (self.has_too_many_waiting(index), PauseReason::Retries),
            (self.is_limited(index), PauseReason::Results),
        ];
        // The pauses of leaving partitions are reported elsewhere.
        let stays = assignment.leaving == Leaving::Active && self.closing.is_none();
        let mut reasons = reasons.into_iter().filter(|(holds, _)| *holds && stays);
        reasons.next().map(|(_, reason)| reason)
    }

    fn report(&self, index: usize, event: StallEvent, status: Option<RunStatus>) {
        let assignment = &self.assignments[index];
        let oldest = assignment.oldest_unsettled();
        let position = oldest.as_ref().map(Delivery::position);
        let position = position.map(tracing::field::display);
        let key = oldest
            .as_ref()
            .and_then(Delivery::key)
            .map(|key| shown_key(key));
        let attempt = status.map(|status| status.attempt);
        let age = status.map(|status| self.now.duration_since(status.begun));
        let age = age.map(tracing::field::debug);
        let next_attempt = status.and_then(|status| status.due);
        let next_attempt = next_attempt.map(|due| due.saturating_duration_since(self.now));
        let next_attempt = next_attempt.map(tracing::field::debug);
        let unsettled = assignment.unsettled();
        let (group, partition) = (&self.group, assignment.partition());
        match event {
            StallEvent::Paused(reason) => event!(
                warn, "millstream.consumer.paused", %group, %partition, reason = reason.as_str(),
                unsettled, position, key, attempt, age, next_attempt,
                "paused at a bound: nothing more of the partition is read until its first \
                 unsettled record is settled"
            ),
            StallEvent::Resumed(reason) => event!(
                info, "millstream.consumer.resumed", %group, %partition, reason = reason.as_str(),
                unsettled, "resumed"
            ),
            StallEvent::Stalled => event!(
                warn, "millstream.consumer.stalled", %group, %partition, unsettled, position, key,
                attempt, age, next_attempt,
                "the first unsettled record of the partition is with its handler or its retries \
                 for longer than stall_warning"
            ),
            StallEvent::Recovered => event!(
                info, "millstream.consumer.recovered", %group, %partition, unsettled,
                "the record that was stalled is settled"
            ),
        }
    }

    /// Reports records of a leaving partition that were started and are not settled.
    pub(super) fn report_unsettled(&self, assignment: &Assignment) {
        let unsettled = assignment.begun();
        if unsettled == 0 {
            return;
        }
        let position = assignment.oldest_unsettled();
        let position = position.map(|delivery| tracing::field::display(delivery.position()));
        event!(
            warn, "millstream.consumer.unsettled", group = %self.group,
            member = self.membership.id(), partition = %assignment.partition(), position, unsettled,
            "left with deliveries that were begun and not settled; they are delivered again"
        );
    }

    /// Reports a pause or resume by the application.
    pub(super) fn report_user_pause(&self, assignment: &Assignment) {
        let (group, partition) = (&self.group, assignment.partition());
        match assignment.paused.by_user {
            true => event!(
                info, "millstream.consumer.paused", %group, %partition, reason = "user", "paused"
            ),
            false => event!(
                info, "millstream.consumer.resumed", %group, %partition, reason = "user", "resumed"
            ),
        }
    }
}

fn to_stats(delivery: &Delivery, status: Option<RunStatus>) -> OldestUnsettled {
    OldestUnsettled::new(
        delivery.position(),
        delivery.key().map(|key| Bytes::copy_from_slice(key)),
        status.map_or(0, |status| status.attempt),
        status.map(|status| status.begun),
        status.and_then(|status| status.due),
    )
}

fn shown_key(key: &[u8]) -> String {
    let shown = &key[..key.len().min(KEY_BYTES)];
    let end = if shown.len() < key.len() { "..." } else { "" };
    format!("{}{end}", shown.escape_ascii())
}
