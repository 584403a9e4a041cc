//! When what is due.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use super::asks::Asks;
use crate::lease::options::WorkerOptions;

/// By how much the KCL spaces its loops apart, so that a renewal is never just too late.
const EPSILON: Duration = Duration::from_millis(25);

/// How often a stream and the version of the fleet are looked at.
pub(super) const CHECK: Duration = Duration::from_secs(60);

/// How often leases of shards that are read to their end are looked at.
const CLEANUP: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Schedule {
    /// Unset while a scan is under way.
    pub(super) scan: Option<Instant>,
    /// When to decide again which leases to take.
    pub(super) decide: Option<Instant>,
    /// Not before this, since the table did not take what was decided.
    hold_off: Option<Instant>,
    /// When a lease may be stolen next.
    pub(super) steal: Instant,
    pub(super) audit: Instant,
    pub(super) cleanup: Instant,
    pub(super) check: Instant,
    audit_interval: Duration,
    fast: Duration,
    slow: Duration,
    delays: Option<ExponentialBackoff>,
}

impl Schedule {
    pub(super) fn new(options: &WorkerOptions, now: Instant) -> Self {
        let slow = (options.failover + EPSILON) * 2;
        Self {
            scan: None,
            decide: None,
            hold_off: None,
            steal: now,
            audit: now + options.audit_interval,
            cleanup: now,
            check: now + CHECK,
            audit_interval: options.audit_interval,
            fast: options.scan_interval.min(options.failover / 3),
            slow,
            delays: None,
        }
    }

    pub(super) fn next(&self, asks: &Asks) -> Option<Instant> {
        let regular = [self.audit, self.cleanup, self.check];
        let others = [self.scan, self.decide, asks.due()];
        regular
            .into_iter()
            .chain(others.into_iter().flatten())
            .min()
    }

    /// Plans the next scan: soon while others may come, go, or ask, and the later the larger the
    /// table is.
    pub(super) fn scan_again(&mut self, now: Instant, rows: usize, is_alone: bool) {
        self.delays = None;
        let pages = u32::try_from(rows / 100).unwrap_or(u32::MAX);
        let shared = self.fast.saturating_mul(pages.saturating_add(1));
        let interval = match is_alone {
            true => self.slow,
            false => shared.min(self.slow),
        };
        self.scan = Some(now + interval);
    }

    pub(super) fn scan_within(&mut self, now: Instant, within: Duration) {
        self.scan = self.scan.map(|scan| scan.min(now + within));
    }

    /// Scans as soon as while others share the table.
    pub(super) fn scan_soon(&mut self, now: Instant) {
        self.scan_within(now, self.fast);
    }

    /// Plans the next scan after one that failed.
    pub(super) fn scan_later(&mut self, now: Instant) {
        self.scan = Some(now + self.delay());
    }

    pub(super) fn decide_at(&mut self, time: Instant) {
        let time = self.hold_off.map_or(time, |hold_off| time.max(hold_off));
        self.decide = Some(self.decide.map_or(time, |decide| time.min(decide)));
    }

    /// Decides again when the table may be better.
    pub(super) fn decide_later(&mut self, now: Instant) {
        let time = now + self.delay();
        self.hold_off = Some(time);
        self.decide = Some(time);
    }

    /// Notes that the table took what was decided.
    pub(super) fn decided_well(&mut self) {
        self.hold_off = None;
    }

    pub(super) fn steal_later(&mut self, now: Instant) {
        self.steal = now + self.slow;
    }

    pub(super) fn audit_again(&mut self, now: Instant) {
        self.audit = now + self.audit_interval;
    }

    pub(super) fn clean_again(&mut self, now: Instant) {
        self.cleanup = now + self.audit_interval.min(CLEANUP);
    }

    fn delay(&mut self) -> Duration {
        let longest = self.slow / 6;
        let delays = self.delays.get_or_insert_with(|| {
            ExponentialBuilder::new()
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(longest)
                .without_max_times()
                .with_jitter()
                .build()
        });
        delays.next().unwrap_or(longest)
    }
}
