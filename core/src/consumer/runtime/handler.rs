//! One attempt of a handler. Its panics never unwind into the runtime.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::consumer::delivery::Ownership;
use crate::{Batch, BatchFailure, Delivery, Failure, Record};

/// What the runtime does with deliveries. Handlers, batch handlers and pulling consumers are each a
/// `Handler`, so that order, retry and draining know one shape only.
pub(crate) trait Handler: Send + Sync + 'static {
    /// One attempt.
    type Future: Future<Output = Result<Self::Output, HandlerError>> + Send + 'static;

    /// What an attempt that settles its deliveries has made.
    type Output: Output;

    /// Whether progress is stored with what was made. Known when it is compiled, so that others are
    /// not asked for each record.
    const PUBLISHES: bool = false;

    /// Unset: one delivery at a time, keys side by side. Set: batches of a partition.
    fn batch(&self) -> Option<Batch> {
        None
    }

    /// Unset: progress is stored alone. Set: progress is stored in one step with what was made below
    /// it, in this stream.
    fn output_stream(&self) -> Option<&Arc<str>> {
        None
    }

    /// Gives up attempts of a partition that is revoked, if nothing was begun in them that could be
    /// finished in time.
    fn reclaim(&self, _ownership: &Arc<Ownership>) {}

    /// Takes in that so many records were published there.
    fn on_published(&self, _records: u64) {}

    /// Begins an attempt.
    fn attempt(&self, deliveries: impl Iterator<Item = Delivery>) -> Self::Future;
}

/// What is to be published of an attempt.
pub(crate) trait Output: Default + Send + 'static {
    /// The records, in order.
    fn into_records(self) -> Vec<Record>;
}

/// A handler whose effects are its own.
impl Output for () {
    fn into_records(self) -> Vec<Record> {
        Vec::new()
    }
}

impl Output for Vec<Record> {
    fn into_records(self) -> Vec<Record> {
        self
    }
}

/// Why an attempt did not settle its deliveries.
#[derive(Debug)]
pub(crate) enum HandlerError {
    /// The handler said no, or panicked.
    Failed(BatchFailure),
    /// Nobody is there any more to say yes or no.
    Abandoned,
}

/// Room for one attempt's future, used again and again, so that a handler that is ready at once
/// allocates nothing.
pub(crate) struct FutureSlot<W: Handler>(Pin<Box<Option<W::Future>>>);

impl<W: Handler> FutureSlot<W> {
    pub(crate) fn new() -> Self {
        Self(Box::pin(None))
    }

    /// Drops what is left of an attempt. A destructor that panics is the handler's trouble, not
    /// ours.
    pub(crate) fn clear(&mut self) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.0.set(None)));
    }

    /// Begins an attempt and polls it once.
    pub(crate) fn begin(
        &mut self,
        handler: &Arc<W>,
        deliveries: impl Iterator<Item = Delivery>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<W::Output, HandlerError>> {
        let began = catch_unwind(AssertUnwindSafe(|| {
            self.0.set(Some(handler.attempt(deliveries)));
        }));
        match began {
            Ok(()) => self.poll(cx),
            Err(panic) => Poll::Ready(self.panicked(panic)),
        }
    }

    /// Polls the attempt that was begun.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<W::Output, HandlerError>> {
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let attempt = self
                .0
                .as_mut()
                .as_pin_mut()
                .expect("an attempt was begun and has not answered");
            let answer = attempt.poll(cx);
            if answer.is_ready() {
                self.0.set(None);
            }
            answer
        }));
        polled.unwrap_or_else(|panic| Poll::Ready(self.panicked(panic)))
    }

    /// Waits for the attempt that was begun.
    pub(crate) async fn finish(&mut self) -> Result<W::Output, HandlerError> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn panicked(&mut self, panic: Box<dyn Any + Send>) -> Result<W::Output, HandlerError> {
        self.clear();
        if failpoint!(PanicSettles) {
            return Ok(W::Output::default());
        }
        let said = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Err(HandlerError::Failed(BatchFailure::whole(
            Failure::panicked(said),
        )))
    }
}

/// However a member ends, what it drops of its handlers does not panic in its place.
impl<W: Handler> Drop for FutureSlot<W> {
    fn drop(&mut self) {
        self.clear();
    }
}
