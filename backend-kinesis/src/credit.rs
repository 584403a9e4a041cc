//! Distinguishes a temporary refusal of credentials from a permanent one.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long credentials that were accepted before may be refused: a token expires before its provider has the next one, a
/// clock is set, a service that checks signatures is down. Credentials that were never accepted are wrong.
///
/// Clones share everything, and those with another [patience](Self::with_patience) only that the credentials were
/// accepted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credit {
    accepted: Arc<AtomicBool>,
    refused_since: Arc<Mutex<Option<Instant>>>,
    patience: Duration,
}

impl Credit {
    pub(crate) fn with_patience(&self, patience: Duration) -> Self {
        Self {
            accepted: self.accepted.clone(),
            refused_since: Arc::default(),
            patience,
        }
    }

    fn refused_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.refused_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the credentials were accepted.
    pub(crate) fn accepted(&self) {
        self.accepted.store(true, Relaxed);
        *self.refused_since() = None;
    }

    /// Records that the credentials were refused at this time. Returns whether they may be accepted again.
    pub(crate) fn outlasts_refusal(&self, now: Instant) -> bool {
        let since = *self.refused_since().get_or_insert(now);
        self.accepted.load(Relaxed) && now - since < self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn credentials_that_were_never_accepted_are_wrong() {
        let credit = Credit::default().with_patience(10 * SECOND);
        assert!(!credit.outlasts_refusal(Instant::now()));
    }

    #[test]
    fn accepted_credentials_may_be_refused_for_the_patience() {
        let connection = Credit::default();
        let now = Instant::now();
        connection.with_patience(SECOND).accepted();
        let credit = connection.with_patience(10 * SECOND);
        assert!(credit.outlasts_refusal(now));
        assert!(credit.outlasts_refusal(now + 9 * SECOND));
        assert!(!credit.outlasts_refusal(now + 10 * SECOND));
        credit.accepted();
        assert!(credit.outlasts_refusal(now + 11 * SECOND));
        assert!(!credit.outlasts_refusal(now + 21 * SECOND));
    }
}
