//! Joins with an `instance_id` whose last member may still be registered.
//!
//! With KIP-848 the broker refuses a member if another one has its `instance_id`, until that one has left or its
//! session has expired. librdkafka treats the refusal as fatal. A process that was killed and restarted runs into
//! it. So the join is retried for as long as a session may last, each time with a new client. (In a classic group
//! the new member replaces the old one at once.)

use std::error::Error as _;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use millstream_core::{Error, ErrorKind, Result};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::time::{Instant, sleep_until};

/// How long a dead member may occupy an `instance_id`. Only the broker knows the session timeout: 45 s by default,
/// and at most 60 s unless its limit was raised (`group.consumer.max.session.timeout.ms`). The rest is time for the
/// broker and the new member to do their part.
const LONGEST: Duration = Duration::from_secs(70);

/// Joins, and retries as long as a dead member may occupy the `instance_id`.
pub(super) async fn once_released<T, F>(mut join: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + LONGEST;
    let pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(2))
        .without_max_times()
        .with_jitter();
    let mut pauses = pauses.build();
    let mut waits = false;
    loop {
        let refused = match join().await {
            Err(error) if is_taken(&error) => error,
            joined => return joined,
        };
        let now = Instant::now();
        let pause = pauses.next().filter(|_| now < deadline);
        let Some(pause) = pause else {
            let message = format!(
                "another member has had this consumer.instance_id for {LONGEST:?} and lives: give \
                 each its own"
            );
            return Err(Error::new(ErrorKind::Invalid, "join", message).with_source(refused));
        };
        if !std::mem::replace(&mut waits, true) {
            tracing::warn!(
                target: "librdkafka",
                "the broker still has an earlier member of this consumer.instance_id; waiting for \
                 the end of its session"
            );
        }
        sleep_until(deadline.min(now + pause)).await;
    }
}

fn is_taken(error: &Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref());
    matches!(
        source,
        Some(KafkaError::Global(RDKafkaErrorCode::UnreleasedInstanceId))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error;

    fn refusal(code: RDKafkaErrorCode) -> Result<()> {
        Err(error::from_code("read", code))
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_waited_for() {
        let taken = || refusal(RDKafkaErrorCode::UnreleasedInstanceId);
        let mut answers = vec![taken(), taken(), Ok(())].into_iter();
        let joined = once_released(|| std::future::ready(answers.next().unwrap()));
        joined.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_stays_taken_is_told() {
        let begun = Instant::now();
        let taken = || std::future::ready(refusal(RDKafkaErrorCode::UnreleasedInstanceId));
        let told = once_released(taken).await.unwrap_err();
        assert_eq!(
            (told.kind(), begun.elapsed()),
            (ErrorKind::Invalid, LONGEST)
        );
        assert!(told.message().contains("instance_id"), "{told}");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_else_is_tried_again() {
        let mut tried = 0;
        let denied = once_released(|| {
            tried += 1;
            std::future::ready(refusal(RDKafkaErrorCode::GroupAuthorizationFailed))
        });
        assert_eq!(denied.await.unwrap_err().kind(), ErrorKind::Denied);
        assert_eq!(tried, 1);
    }
}
