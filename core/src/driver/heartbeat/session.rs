//! Decides when a session must be renewed, and when it has expired by the member's own clock.

use std::time::Duration;

use tokio::time::Instant;

use super::SessionOptions;

/// The minimum number of attempts to renew within one session timeout.
const ATTEMPTS: u32 = 3;

/// A state machine whose clock is passed in.
#[derive(Debug)]
pub(super) struct Session {
    options: SessionOptions,
    /// When the request of the last successful renewal was sent. The store counts from a later
    /// time, so the session expires here no later than there. `None` while there is no session.
    renewed: Option<Instant>,
    /// When the next attempt is due.
    pub(super) due: Instant,
}

impl Session {
    /// Starts a session whose join was sent at `joined`.
    pub(super) fn new(options: SessionOptions, joined: Instant) -> Self {
        Self {
            options,
            renewed: Some(joined),
            due: joined + options.heartbeat_interval,
        }
    }

    /// Returns when the session expires; `None` while there is none.
    pub(super) fn expires(&self) -> Option<Instant> {
        Some(self.renewed? + self.options.timeout)
    }

    /// Records an attempt that succeeded, and was sent at `sent`.
    pub(super) fn renew(&mut self, sent: Instant) {
        self.renewed = Some(sent);
        self.due = sent + self.options.heartbeat_interval;
    }

    /// Records an attempt that failed: the next one follows soon.
    pub(super) fn fail(&mut self, now: Instant) {
        let soon = self.options.timeout / 10;
        self.due = now + soon.min(self.options.heartbeat_interval);
    }

    /// Ends the session: the member must join again at once.
    pub(super) fn expire(&mut self, now: Instant) {
        self.renewed = None;
        self.due = now;
    }

    /// Returns the deadline of an attempt that is sent at `sent`. An attempt that hangs must leave time for
    /// another.
    pub(super) fn attempt_deadline(&self, sent: Instant) -> Instant {
        let deadline = sent + self.options.timeout / ATTEMPTS;
        self.expires()
            .map_or(deadline, |expires| expires.min(deadline))
    }
}

impl SessionOptions {
    /// Creates the options of a session, with a heartbeat interval of a third of the timeout.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            heartbeat_interval: timeout / ATTEMPTS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn session(joined: Instant) -> Session {
        Session::new(SessionOptions::new(9 * SECOND), joined)
    }

    #[test]
    fn a_session_counts_from_the_sending_of_its_last_renewal() {
        let joined = Instant::now();
        let mut session = session(joined);
        assert_eq!(session.due, joined + 3 * SECOND);
        assert_eq!(session.expires(), Some(joined + 9 * SECOND));
        // No matter how late the response is.
        session.renew(joined + 3 * SECOND);
        assert_eq!(session.expires(), Some(joined + 12 * SECOND));
        assert_eq!(session.due, joined + 6 * SECOND);
        session.fail(joined + 7 * SECOND);
        assert_eq!(session.expires(), Some(joined + 12 * SECOND));
        assert_eq!(session.due, joined + 7 * SECOND + 9 * SECOND / 10);
    }

    #[test]
    fn an_attempt_that_hangs_leaves_time_for_another_and_does_not_outlast_the_session() {
        let joined = Instant::now();
        let mut session = session(joined);
        let sent = joined + 3 * SECOND;
        assert_eq!(session.attempt_deadline(sent), joined + 6 * SECOND);
        let sent = joined + 8 * SECOND;
        assert_eq!(session.attempt_deadline(sent), joined + 9 * SECOND);
        session.expire(joined + 9 * SECOND);
        assert_eq!(session.expires(), None);
        assert_eq!(session.due, joined + 9 * SECOND, "it joins again at once");
        let sent = joined + 9 * SECOND;
        assert_eq!(session.attempt_deadline(sent), joined + 12 * SECOND);
    }
}
