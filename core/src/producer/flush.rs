//! The generations of records that a flush waits for.

use std::mem;
use std::sync::Arc;

use tokio_util::sync::{CancellationToken, DropGuard};

/// Held by every completer of a generation. Dropping the last one ends the generation by cancelling
/// its token.
pub(super) type FlushGeneration = Arc<DropGuard>;

/// Generations of sent records; each flush starts a new one.
///
/// A flush waits until all earlier generations have ended. Nothing is counted, and records that are
/// sent in the meantime do not delay it. A generation ends when its last completer is dropped, and every
/// dropped completer has completed its records. So no flush returns too early, and none waits forever.
pub(super) struct FlushGenerations {
    now: FlushGeneration,
    now_over: CancellationToken,
    /// The earlier generations that had not ended at the last flush.
    before: Vec<CancellationToken>,
}

impl FlushGenerations {
    pub(super) fn new() -> Self {
        let (now, now_over) = begin();
        Self {
            now,
            now_over,
            before: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> &FlushGeneration {
        &self.now
    }

    /// Starts a new generation and returns the tokens of all earlier ones that have not ended.
    pub(super) fn next(&mut self) -> Vec<CancellationToken> {
        let (now, now_over) = begin();
        // If nothing was sent in this generation, no completer holds it, and it ends here.
        drop(mem::replace(&mut self.now, now));
        self.before.push(mem::replace(&mut self.now_over, now_over));
        self.before.retain(|over| !over.is_cancelled());
        self.before.clone()
    }
}

fn begin() -> (FlushGeneration, CancellationToken) {
    let over = CancellationToken::new();
    (Arc::new(over.clone().drop_guard()), over)
}
