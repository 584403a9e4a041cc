//! How far this member may take leases without a live owner.
//!
//! It takes a few, scans the table for others that do the same, and then takes its share. So a fleet that starts, or
//! comes back after an outage, does not send each member's attempt for each lease. A single member needs one scan more.

use std::time::Duration;

use tokio::time::Instant;

use super::LeaseCoordinator;
use crate::lease::taker::{Claim, Decision};

/// How long to wait for the end of a race for leases.
pub(super) const RACE: Duration = Duration::from_millis(50);

/// The state of a race for leases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Claims {
    /// It is not known who else takes leases.
    #[default]
    Unknown,
    /// The table must be scanned.
    Scanning {
        /// When the first result of the last attempts was known. A scan that begins earlier is too old.
        finished: Option<Instant>,
        /// What may be taken after it.
        then: Claim,
    },
    /// The table was scanned.
    Scanned(Claim),
}

impl Claims {
    pub(super) fn claim(self) -> Claim {
        match self {
            Self::Unknown => Claim::Few,
            Self::Scanning { .. } => Claim::Nothing,
            Self::Scanned(claim) => claim,
        }
    }

    /// Records that another member was faster.
    pub(super) fn refused(&mut self) {
        if !matches!(self, Self::Scanning { .. }) {
            *self = Self::Scanning {
                finished: None,
                then: Claim::Share,
            };
        }
    }

    /// Records a scan that began at this time.
    pub(super) fn scanned(&mut self, begun: Instant) {
        if let Self::Scanning {
            finished: Some(finished),
            then,
        } = *self
            && finished <= begun
        {
            *self = Self::Scanned(then);
        }
    }
}

impl LeaseCoordinator {
    /// Continues without a scan that has failed: leases must not stay unread because the table cannot be scanned.
    pub(super) fn on_scan_failed(&mut self, now: Instant) {
        if let Claims::Scanning {
            finished: Some(_), ..
        } = self.claims
        {
            self.claims = Claims::Scanned(Claim::Few);
            self.schedule.decide_at(now);
        }
    }

    /// Continues after a decision about free leases.
    pub(super) fn on_decided(&mut self, decision: &Decision, now: Instant) {
        if matches!(self.claims, Claims::Scanning { .. }) {
            return;
        }
        if decision.lacking == 0 {
            self.claims = Claims::Unknown;
            return;
        }
        let is_waiting = decision.take.is_empty();
        self.claims = Claims::Scanning {
            finished: is_waiting.then_some(now),
            // Who is preferred for the others may be unable to take them.
            then: match is_waiting {
                true => Claim::Few,
                false => Claim::Share,
            },
        };
        if is_waiting {
            self.schedule.scan_within(now, RACE);
        }
    }

    /// Scans the table when the attempts of a race have ended, or take long.
    pub(super) fn on_take_finished(&mut self, now: Instant) {
        if let Claims::Scanning { finished, .. } = &mut self.claims {
            finished.get_or_insert(now);
            match self.taking.is_empty() {
                true => self.schedule.scan_now(now),
                false => self.schedule.scan_within(now, RACE),
            }
        }
    }

    /// Scans the table in a while, because it may be overloaded.
    pub(super) fn on_take_failed(&mut self, now: Instant) {
        if let Claims::Scanning { finished, .. } = &mut self.claims {
            finished.get_or_insert(now);
            self.schedule.scan_soon(now);
        }
    }

    /// Scans once more if the last scan is too old.
    pub(super) fn rescan_if_stale(&mut self, now: Instant) {
        if let Claims::Scanning { finished, .. } = &mut self.claims
            && (finished.is_some() || self.taking.is_empty())
        {
            finished.get_or_insert(now);
            self.schedule.scan_within(now, RACE);
        }
    }
}
