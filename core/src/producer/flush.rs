//! What a flush waits for.

use std::mem;
use std::sync::Arc;

use tokio_util::sync::{CancellationToken, DropGuard};

/// Held by every completer of an generation. The last one that goes ends the generation, by cancelling its token.
pub(super) type FlushGeneration = Arc<DropGuard>;

/// The time of a producer, cut by its flushes.
///
/// Each flush ends the generation in which records are sent, and waits until that one and all before it
/// are over: nothing is counted, and records that are sent meanwhile hold up no flush. Ending an
/// generation is dropping the last completer, and no completer is dropped unanswered, so no flush returns too early
/// and none waits for ever.
pub(super) struct FlushGenerations {
    now: FlushGeneration,
    now_over: CancellationToken,
    /// The earlier ones that were not over when it was last looked.
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

    /// Begins a new generation and answers the ends of all earlier ones that are not over.
    pub(super) fn next(&mut self) -> Vec<CancellationToken> {
        let (now, now_over) = begin();
        // Nobody had a share in the ended one if nothing was sent in it: then it is over right
        // here.
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
