use std::error::Error as StdError;
use std::fmt;

/// Why a batch handler failed, from
/// [`ConsumerGroup::run_batches`](crate::ConsumerGroup::run_batches).
///
/// Output from any error by `?` (the whole batch failed), or by [`at`](Self::at).
pub struct BatchFailure {
    /// The one that failed; unset: all of them.
    index: Option<usize>,
    reason: Box<dyn StdError + Send + Sync>,
    panicked: bool,
}

impl BatchFailure {
    /// Says that the delivery at `index` failed: the ones before it are settled, the later ones are
    /// not and come again. An index past the end counts as the last one.
    pub fn at(index: usize, reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            index: Some(index),
            reason: reason.into(),
            panicked: false,
        }
    }

    pub(crate) fn whole(reason: Box<dyn StdError + Send + Sync>) -> Self {
        Self {
            index: None,
            reason,
            panicked: false,
        }
    }

    pub(crate) fn panicked(said: &str) -> Self {
        Self {
            index: None,
            reason: format!("handler panicked: {said}").into(),
            panicked: true,
        }
    }

    pub(crate) fn index(&self) -> Option<usize> {
        self.index
    }

    pub(crate) fn is_panic(&self) -> bool {
        self.panicked
    }

    pub(crate) fn into_reason(self) -> Box<dyn StdError + Send + Sync> {
        self.reason
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for BatchFailure {
    fn from(reason: E) -> Self {
        Self::whole(reason.into())
    }
}

impl fmt::Debug for BatchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "delivery {index} of the batch failed: {}", self.reason),
            None => write!(f, "{}", self.reason),
        }
    }
}
