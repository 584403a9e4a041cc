//! The times at which the tasks of a member are due.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use super::handoff_requests::HandoffRequests;
use crate::lease::options::WorkerOptions;

/// The margin between the KCL's loops, which keeps a renewal from being just too late.
const EPSILON: Duration = Duration::from_millis(25);

/// The interval between two checks of a stream and of the fleet's version by the leader.
const CHECK: Duration = Duration::from_secs(60);

/// The interval of the other members. All clients of an account share 20 descriptions of streams per second.
const FOLLOWER_CHECK: Duration = Duration::from_secs(600);

/// The interval between two lease cleanups.
const CLEANUP: Duration = Duration::from_secs(60);

/// The scan interval while the table changes.
const FAST: Duration = Duration::from_secs(1);

/// The number of such intervals for which changes are expected after the last known one.
const CHANGING: u32 = 3;

/// How long to wait for the next scan.
#[derive(Debug, Clone, Copy)]
pub(super) enum Interval {
    /// Other members may take and request leases, and leases move between them.
    Restless { rows: usize },
    /// Other members share the table, and notify this one when something changes. Only the death of a member needs a scan.
    Quiet { rows: usize },
    /// All leases are this member's.
    Alone,
}

#[derive(Debug)]
pub(super) struct Schedule {
    /// `None` while a scan is in flight.
    pub(super) scan: Option<Instant>,
    /// Whether the scan in flight may be too old.
    rescan: bool,
    /// Until when changes are expected.
    changes_until: Option<Instant>,
    /// When to notify the others.
    pub(super) notify: Option<Instant>,
    /// When the next notification is allowed.
    next_notify: Instant,
    /// When to run the lease taker again.
    pub(super) decide: Option<Instant>,
    /// The earliest time of that, after a failed take.
    hold_off: Option<Instant>,
    /// When the next lease may be stolen.
    pub(super) steal: Instant,
    pub(super) audit: Instant,
    pub(super) cleanup: Instant,
    pub(super) check: Instant,
    /// The same, unless this member is the leader.
    follower_check: Instant,
    audit_interval: Duration,
    fast: Duration,
    quiet: Duration,
    longest: Duration,
    slow: Duration,
    delays: Option<ExponentialBackoff>,
}

/// Returns this interval or a little less: members that start together must not check together.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(1.0 - fastrand::f64() / 4.0)
}

impl Schedule {
    pub(super) fn new(options: &WorkerOptions, now: Instant) -> Self {
        let slow = (options.failover + EPSILON) * 2;
        // So that each lease is seen twice before it expires.
        let most = options.failover * 2 / 3;
        let quiet = options.scan_interval.unwrap_or(most).min(most);
        Self {
            scan: None,
            rescan: false,
            changes_until: None,
            notify: None,
            next_notify: now,
            decide: None,
            hold_off: None,
            steal: now,
            audit: now + options.audit_interval,
            cleanup: now,
            check: now + jittered(CHECK),
            follower_check: now + jittered(FOLLOWER_CHECK),
            audit_interval: options.audit_interval,
            fast: FAST.min(options.failover / 3).min(quiet),
            quiet,
            longest: options.failover,
            slow,
            delays: None,
        }
    }

    pub(super) fn next(&self, requests: &HandoffRequests) -> Option<Instant> {
        let regular = [self.audit, self.cleanup, self.check];
        let others = [self.scan, self.decide, self.notify, requests.due()];
        regular
            .into_iter()
            .chain(others.into_iter().flatten())
            .min()
    }

    /// Plans the next scan. The larger the table, the later.
    pub(super) fn scan_again(&mut self, now: Instant, interval: Interval) {
        self.delays = None;
        let fast = |rows: usize| {
            let pages = u32::try_from(rows / 100).unwrap_or(u32::MAX);
            self.fast.saturating_mul(pages.saturating_add(1))
        };
        // The leases of others expire by a scan, so it cannot be much later.
        let wait = match interval {
            _ if std::mem::take(&mut self.rescan) => Duration::ZERO,
            Interval::Restless { rows } => fast(rows).min(self.longest),
            Interval::Quiet { rows } => fast(rows).max(self.quiet).min(self.longest),
            Interval::Alone => self.slow,
        };
        self.scan = Some(now + wait);
    }

    /// Scans at once, or once more if a scan is in flight.
    pub(super) fn scan_now(&mut self, now: Instant) {
        self.rescan = self.scan.is_none();
        self.scan_within(now, Duration::ZERO);
    }

    /// Scans often for a while.
    pub(super) fn expect_changes(&mut self, now: Instant) {
        self.changes_until = Some(now + self.fast * CHANGING);
    }

    pub(super) fn expects_changes(&self, now: Instant) -> bool {
        self.changes_until.is_some_and(|until| now < until)
    }

    /// Notifies the others at once, or together with the next allowed notification.
    pub(super) fn notify_soon(&mut self, now: Instant) {
        self.notify.get_or_insert(now.max(self.next_notify));
    }

    pub(super) fn notified(&mut self, now: Instant) {
        self.notify = None;
        self.next_notify = now + self.fast;
    }

    pub(super) fn scan_within(&mut self, now: Instant, within: Duration) {
        self.scan = self.scan.map(|scan| scan.min(now + within));
    }

    /// Scans after the short interval that applies while the table changes.
    pub(super) fn scan_soon(&mut self, now: Instant) {
        self.scan_within(now, self.fast);
    }

    /// Plans the next scan after a failed one.
    pub(super) fn scan_later(&mut self, now: Instant) {
        self.scan = Some(now + self.delay());
    }

    pub(super) fn decide_at(&mut self, time: Instant) {
        let time = self.hold_off.map_or(time, |hold_off| time.max(hold_off));
        self.decide = Some(self.decide.map_or(time, |decide| time.min(decide)));
    }

    /// Runs the lease taker again when the table may have recovered.
    pub(super) fn decide_later(&mut self, now: Instant) {
        let time = now + self.delay();
        self.hold_off = Some(time);
        self.decide = Some(time);
    }

    /// Records that the table accepted a take.
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

    /// Schedules the next check, and returns whether one is due now.
    pub(super) fn check_again(&mut self, now: Instant, is_leader: bool) -> bool {
        self.check = now + jittered(CHECK);
        let is_due = is_leader || self.follower_check <= now;
        if is_due {
            self.follower_check = now + jittered(FOLLOWER_CHECK);
        }
        is_due
    }

    /// Makes a check due, whoever is the leader.
    pub(super) fn check_now(&mut self, now: Instant) {
        self.check = now;
        self.follower_check = now;
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
