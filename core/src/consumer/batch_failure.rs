use std::fmt;

use crate::Failure;

/// Why a batch handler failed, from
/// [`ConsumerGroup::run_batches`](crate::ConsumerGroup::run_batches).
///
/// Created from any error or [`Failure`] by `?`, or by [`at`](Self::at).
///
/// Name the failed delivery wherever it is known. A failure without an index is one of the whole
/// batch, which is retried as a whole. When its attempts are used up (at once if it is
/// [permanent](Failure::permanent)), the batch is handed out in halves, and these in halves, until
/// the single deliveries that fail are found. The failure policy applies to each of these alone: no
/// delivery is dead-lettered or skipped because of its neighbour.
pub struct BatchFailure {
    /// The failed delivery. `None`: the whole batch.
    index: Option<usize>,
    failure: Failure,
}

impl BatchFailure {
    /// Fails the delivery at `index`. The deliveries before it are settled; the later ones are not, and
    /// are handed out again with it. An index past the end counts as the last one.
    pub fn at(index: usize, failure: impl Into<Failure>) -> Self {
        Self {
            index: Some(index),
            failure: failure.into(),
        }
    }

    pub(crate) fn whole(failure: Failure) -> Self {
        Self {
            index: None,
            failure,
        }
    }

    pub(crate) fn into_parts(self) -> (Option<usize>, Failure) {
        (self.index, self.failure)
    }
}

impl<E: Into<Failure>> From<E> for BatchFailure {
    fn from(failure: E) -> Self {
        Self::whole(failure.into())
    }
}

impl fmt::Debug for BatchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "delivery {index} of the batch failed: {}", self.failure),
            None => write!(f, "{}", self.failure),
        }
    }
}
