//! Waits until a cluster has carried out an accepted change, by polling with growing delays.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use millstream_core::Result;
use tokio::time::{Instant, sleep_until};

/// The timeout of the last look, at the deadline.
const LAST_LOOK: Duration = Duration::from_millis(200);

/// The end of the time for repeated looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    deadline: Instant,
}

impl Deadline {
    pub(crate) fn after(time: Duration) -> Self {
        Self {
            deadline: Instant::now() + time,
        }
    }

    /// Returns the time that is left. It is at least 1 ms, since librdkafka takes less as no limit at all.
    pub(crate) fn left(&self) -> Duration {
        let left = self.deadline.saturating_duration_since(Instant::now());
        left.max(Duration::from_millis(1))
    }

    /// Calls `look` until it returns a value. Returns `None` if the time is over before. A retryable error counts as no
    /// value yet. It is returned at the deadline, unless an earlier look succeeded. `look` gets the time that is left.
    pub(crate) async fn until<T, F>(&self, mut look: impl FnMut(Duration) -> F) -> Result<Option<T>>
    where
        F: Future<Output = Result<Option<T>>>,
    {
        // The change takes some milliseconds on a quiet cluster, and seconds on a busy one.
        let pauses = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(20))
            .with_max_delay(Duration::from_millis(500))
            .with_factor(1.5)
            .without_max_times()
            .with_jitter();
        let mut looked = false;
        for pause in pauses.build() {
            let seen = look(self.left().max(LAST_LOOK)).await;
            let over = Instant::now() >= self.deadline;
            match seen {
                Ok(None) if over => return Ok(None),
                Ok(None) => looked = true,
                // There was no value at an earlier look. That says more than the error of the last look.
                Err(error) if error.is_retryable() && over && looked => return Ok(None),
                Err(error) if error.is_retryable() && !over => {}
                seen => return seen,
            }
            // The last look begins at the deadline itself.
            sleep_until(self.deadline.min(Instant::now() + pause)).await;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::{Error, ErrorKind};

    use super::*;

    fn error(kind: ErrorKind) -> Result<Option<()>> {
        Err(Error::new(kind, "look", "not to be seen"))
    }

    #[tokio::test(start_paused = true)]
    async fn looks_until_it_is_there() {
        let deadline = Deadline::after(Duration::from_secs(10));
        let mut answers = vec![Ok(None), error(ErrorKind::Unavailable), Ok(Some(()))].into_iter();
        let seen = deadline.until(|_| std::future::ready(answers.next().unwrap()));
        assert_eq!(seen.await.unwrap(), Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn says_after_the_time_that_it_is_not_there() {
        let begun = Instant::now();
        let deadline = Deadline::after(Duration::from_secs(10));
        let mut looks = 0;
        let seen = deadline.until(|_| {
            looks += 1;
            let late = begun.elapsed() >= Duration::from_secs(10);
            std::future::ready(if late {
                error(ErrorKind::Timeout)
            } else {
                Ok(None)
            })
        });
        assert_eq!(seen.await.unwrap(), None);
        assert_eq!(begun.elapsed().as_secs(), 10);
        assert!((10..100).contains(&looks), "{looks}");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_errors_that_stay() {
        let deadline = Deadline::after(Duration::from_secs(10));
        let begun = Instant::now();
        let denied = deadline
            .until(|_| std::future::ready(error(ErrorKind::Denied)))
            .await;
        assert_eq!(denied.unwrap_err().kind(), ErrorKind::Denied);
        assert!(begun.elapsed().is_zero());
        let down = deadline
            .until(|_| std::future::ready(error(ErrorKind::Unavailable)))
            .await;
        assert_eq!(down.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
