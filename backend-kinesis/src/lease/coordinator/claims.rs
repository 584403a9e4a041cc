//! How far this member may take leases without a live owner.
//!
//! It takes a few, looks at the table for others that do the same, and then takes its share. So a fleet that starts, or
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
    Looking {
        /// When the first result of the last attempts was known. A scan that begins earlier is too old.
        landed: Option<Instant>,
        /// What may be taken after it.
        then: Claim,
    },
    /// The table was scanned.
    Looked(Claim),
}

impl Claims {
    pub(super) fn claim(self) -> Claim {
        match self {
            Self::Unknown => Claim::Few,
            Self::Looking { .. } => Claim::Nothing,
            Self::Looked(claim) => claim,
        }
    }

    /// Records that another member was faster.
    pub(super) fn refused(&mut self) {
        if !matches!(self, Self::Looking { .. }) {
            *self = Self::Looking {
                landed: None,
                then: Claim::Share,
            };
        }
    }

    /// Records a scan that began at this time.
    pub(super) fn scanned(&mut self, begun: Instant) {
        if let Self::Looking {
            landed: Some(landed),
            then,
        } = *self
            && landed <= begun
        {
            *self = Self::Looked(then);
        }
    }
}

impl LeaseCoordinator {
    /// Continues without a scan that has failed: leases must not stay unread because the table cannot be scanned.
    pub(super) fn could_not_look(&mut self, now: Instant) {
        if let Claims::Looking {
            landed: Some(_), ..
        } = self.claims
        {
            self.claims = Claims::Looked(Claim::Few);
            self.schedule.decide_at(now);
        }
    }

    /// Continues after a decision about free leases.
    pub(super) fn claimed(&mut self, decision: &Decision, now: Instant) {
        if matches!(self.claims, Claims::Looking { .. }) {
            return;
        }
        if decision.lacking == 0 {
            self.claims = Claims::Unknown;
            return;
        }
        let is_waiting = decision.take.is_empty();
        self.claims = Claims::Looking {
            landed: is_waiting.then_some(now),
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

    /// Looks at the table when the attempts of a race have ended, or take long.
    pub(super) fn landed(&mut self, now: Instant) {
        if let Claims::Looking { landed, .. } = &mut self.claims {
            landed.get_or_insert(now);
            match self.taking.is_empty() {
                true => self.schedule.scan_now(now),
                false => self.schedule.scan_within(now, RACE),
            }
        }
    }

    /// Looks at the table in a while, because it may be overloaded.
    pub(super) fn failed_to_take(&mut self, now: Instant) {
        if let Claims::Looking { landed, .. } = &mut self.claims {
            landed.get_or_insert(now);
            self.schedule.scan_soon(now);
        }
    }

    /// Scans once more if the last scan is too old.
    pub(super) fn look_again(&mut self, now: Instant) {
        if let Claims::Looking { landed, .. } = &mut self.claims
            && (landed.is_some() || self.taking.is_empty())
        {
            landed.get_or_insert(now);
            self.schedule.scan_within(now, RACE);
        }
    }
}
