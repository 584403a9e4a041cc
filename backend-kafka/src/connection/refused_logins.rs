//! The logins of one client that brokers refused after the connection had logged in before.
//!
//! Such a refusal is mostly temporary: brokers that restart refuse valid logins until they have loaded them, a login
//! service is down, a limit of new connections is reached. So the client keeps trying. Its login has only failed when
//! *all* brokers have refused it for a time: a password was changed, an account was closed.

use std::time::{Duration, Instant};

use millstream_core::Error;

/// How long a refusal counts. librdkafka waits up to 10 s before it retries, and repeats an error with the same text
/// after 30 s, so a login that stays refused is reported at least this often.
const COUNTS_FOR: Duration = Duration::from_secs(60);

/// The current run of refusals, if there is one.
#[derive(Debug, Default)]
pub(super) struct RefusedLogins(Option<Run>);

#[derive(Debug)]
struct Run {
    since: Instant,
    last: Instant,
    /// The last refusal.
    error: Error,
    /// Whether no broker has failed in another way since the last refusal.
    is_latest: bool,
}

impl RefusedLogins {
    /// Records that a broker refused a login.
    pub(super) fn on_refused(&mut self, error: Error, now: Instant) {
        let current = self.0.as_ref().filter(|run| run.is_current(now));
        let since = current.map_or(now, |run| run.since);
        self.0 = Some(Run {
            since,
            last: now,
            error,
            is_latest: true,
        });
    }

    /// Records that a broker failed in another way: it says nothing of the login.
    pub(super) fn on_other_failure(&mut self) {
        if let Some(run) = &mut self.0 {
            run.is_latest = false;
        }
    }

    /// Records that the client is logged in at a broker.
    pub(super) fn on_logged_in(&mut self) {
        self.0 = None;
    }

    /// Returns the last refusal if it may still be the reason why the client reaches no broker.
    pub(super) fn current(&self, now: Instant) -> Option<&Error> {
        let run = self.0.as_ref().filter(|run| run.is_current(now))?;
        Some(&run.error)
    }

    /// Returns the last refusal if all brokers, which are down now, have refused the client for `timeout`.
    pub(super) fn on_all_brokers_down(&self, timeout: Duration, now: Instant) -> Option<&Error> {
        let run = self.0.as_ref().filter(|run| run.is_current(now))?;
        let is_final = run.is_latest && now >= run.since + timeout;
        is_final.then_some(&run.error)
    }
}

impl Run {
    fn is_current(&self, now: Instant) -> bool {
        now <= self.last + COUNTS_FOR
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::ErrorKind;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn refusal() -> Error {
        Error::new(ErrorKind::Unauthenticated, "connect", "refused")
    }

    fn at(begun: Instant, seconds: u64) -> Instant {
        begun + Duration::from_secs(seconds)
    }

    #[test]
    fn a_refusal_is_final_when_all_brokers_refuse_for_the_timeout() {
        let begun = Instant::now();
        let mut logins = RefusedLogins::default();
        assert!(logins.on_all_brokers_down(TIMEOUT, begun).is_none());
        logins.on_refused(refusal(), begun);
        assert!(logins.on_all_brokers_down(TIMEOUT, begun).is_none());
        logins.on_refused(refusal(), at(begun, 20));
        assert!(logins.on_all_brokers_down(TIMEOUT, at(begun, 29)).is_none());
        assert!(logins.on_all_brokers_down(TIMEOUT, at(begun, 30)).is_some());
    }

    #[test]
    fn a_login_that_is_accepted_begins_a_new_run() {
        let begun = Instant::now();
        let mut logins = RefusedLogins::default();
        logins.on_refused(refusal(), begun);
        logins.on_logged_in();
        assert!(logins.current(begun).is_none());
        logins.on_refused(refusal(), at(begun, 40));
        assert!(logins.on_all_brokers_down(TIMEOUT, at(begun, 41)).is_none());
    }

    #[test]
    fn refusals_that_are_far_apart_are_no_run() {
        let begun = Instant::now();
        let mut logins = RefusedLogins::default();
        logins.on_refused(refusal(), begun);
        assert!(logins.current(at(begun, 60)).is_some());
        assert!(logins.current(at(begun, 61)).is_none());
        logins.on_refused(refusal(), at(begun, 3_600));
        assert!(
            logins
                .on_all_brokers_down(TIMEOUT, at(begun, 3_601))
                .is_none()
        );
    }

    #[test]
    fn brokers_that_cannot_be_reached_do_not_refuse() {
        let begun = Instant::now();
        let mut logins = RefusedLogins::default();
        logins.on_refused(refusal(), begun);
        logins.on_other_failure();
        assert!(logins.on_all_brokers_down(TIMEOUT, at(begun, 40)).is_none());
        logins.on_refused(refusal(), at(begun, 41));
        assert!(logins.on_all_brokers_down(TIMEOUT, at(begun, 41)).is_some());
    }
}
