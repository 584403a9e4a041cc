//! The leases that a member holds.

use std::collections::VecDeque;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use millstream_core::{Epoch, Error, Result};
use tokio::time::Instant;

use crate::lease::command::{Reply, respond};
use crate::lease::key::LeaseKey;
use crate::lease::row::{Progress, Row, Tip, millis};

/// The stage of a held lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lease::member) enum Stage {
    /// A parent of its shard may not be at shard end.
    Waiting,
    /// The application has it.
    Told,
    /// The application was asked at this time to release it.
    Asked(Instant),
    /// It is released, but the release is not stored yet.
    Ceded,
    /// The lease is at shard end. It is held until it can be deleted.
    Ended,
}

/// A change that increments the counter. Each lease has at most one in flight.
#[derive(Debug)]
pub(in crate::lease::member) enum Write {
    Renew,
    Store { progress: Progress, reply: Reply },
    Release { reply: Option<Reply> },
}

impl Write {
    pub(in crate::lease::member) fn answer(self, answer: Result<()>) {
        let reply = match self {
            Self::Renew => None,
            Self::Store { reply, .. } => Some(reply),
            Self::Release { reply } => reply,
        };
        if let Some(reply) = reply {
            respond(reply, answer);
        }
    }
}

/// A lease of this member.
#[derive(Debug)]
pub(in crate::lease::member) struct Held {
    pub(in crate::lease::member) lease: LeaseKey,
    /// The row after the last change whose result is known.
    pub(in crate::lease::member) row: Row,
    pub(in crate::lease::member) epoch: Epoch,
    pub(in crate::lease::member) stage: Stage,
    /// The time just before the request of that change, so that the lease does not expire later here than
    /// elsewhere.
    pub(in crate::lease::member) renewed: Instant,
    /// Whether that change was only a renewal.
    pub(in crate::lease::member) is_quiet: bool,
    /// The time just before the first later request whose result is unknown.
    pub(in crate::lease::member) unsure: Option<Instant>,
    /// Whether a change is in flight.
    pub(in crate::lease::member) busy: bool,
    pub(in crate::lease::member) waiting: VecDeque<Write>,
    /// The tip that its reader has reported last.
    pub(in crate::lease::member) tip: Option<Tip>,
    /// The earliest time of the next attempt after a failed change.
    pub(in crate::lease::member) not_before: Option<Instant>,
    delays: Option<ExponentialBackoff>,
}

impl Held {
    pub(in crate::lease::member) fn new(lease: LeaseKey, row: Row, taken: Instant) -> Self {
        Self {
            lease,
            epoch: Epoch(row.counter),
            stage: match row.is_ended() {
                true => Stage::Ended,
                false => Stage::Waiting,
            },
            row,
            renewed: taken,
            is_quiet: true,
            unsure: None,
            busy: false,
            waiting: VecDeque::new(),
            tip: None,
            not_before: None,
            delays: None,
        }
    }

    /// Returns whether the application may work on it.
    pub(in crate::lease::member) fn is_in_use(&self) -> bool {
        matches!(self.stage, Stage::Told | Stage::Asked(_))
    }

    /// Returns the tip that the next renewal must note, if the progress has reached it.
    pub(in crate::lease::member) fn tip_to_note(&self) -> Option<Tip> {
        let tip = self.tip.filter(|tip| self.row.is_settled_to(tip.after))?;
        let noted = self.row.own.tip.map(|noted| millis(noted.at));
        (noted < Some(millis(tip.at))).then_some(tip)
    }

    /// Records that a change was applied.
    pub(in crate::lease::member) fn succeed(&mut self, row: Row, before: Instant) {
        self.row = row;
        self.renewed = before;
        self.unsure = None;
        self.not_before = None;
        self.delays = None;
    }

    /// Records that a change was not applied, or may not have been.
    pub(in crate::lease::member) fn fail(
        &mut self,
        before: Instant,
        now: Instant,
        longest: Duration,
    ) {
        self.unsure.get_or_insert(before);
        let delays = self.delays.get_or_insert_with(|| {
            ExponentialBuilder::new()
                .with_min_delay(Duration::from_millis(50))
                .with_max_delay(longest)
                .without_max_times()
                .with_jitter()
                .build()
        });
        self.not_before = Some(now + delays.next().unwrap_or(longest));
    }

    /// Takes the due change, if there is one.
    pub(in crate::lease::member) fn next_write(
        &mut self,
        now: Instant,
        renewal: Duration,
    ) -> Option<Write> {
        if self.busy || self.not_before.is_some_and(|time| time > now) {
            return None;
        }
        self.waiting
            .pop_front()
            .or_else(|| (self.renewed + renewal <= now).then_some(Write::Renew))
    }

    /// Returns when the lease needs attention next.
    pub(in crate::lease::member) fn due(&self, renewal: Duration) -> Option<Instant> {
        if self.busy {
            return None;
        }
        let write = match self.waiting.is_empty() {
            true => self.renewed + renewal,
            false => self.renewed,
        };
        Some(self.not_before.map_or(write, |time| time.max(write)))
    }

    pub(in crate::lease::member) fn refuse_all(&mut self, error: &Error) {
        for write in self.waiting.drain(..) {
            write.answer(Err(error.clone()));
        }
    }
}
