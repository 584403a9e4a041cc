//! How a stream places records in its shards, as far as a member knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether a stream distributes records over its shards itself (`AUTO`). All readers of the stream share it, and follow
/// a change at once.
///
/// It does not change back: what the stream has distributed stays where it is when its strategy is reset.
#[derive(Debug, Clone, Default)]
pub(crate) struct Distribution(Arc<AtomicBool>);

impl Distribution {
    pub(crate) fn new(is_automatic: bool) -> Self {
        Self(Arc::new(is_automatic.into()))
    }

    pub(crate) fn is_automatic(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Records that the stream distributes records itself.
    pub(crate) fn set_automatic(&self) {
        self.0.store(true, Relaxed);
    }
}
