//! Attempts of a handler. Panics do not unwind into the runtime.

use std::any::Any;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::consumer::delivery::Ownership;
use crate::{Batch, BatchFailure, Delivery, Failure, Record};

/// The receiver of deliveries: a handler, a batch handler, a pipeline or a pull consumer.
pub(crate) trait Handler: Send + Sync + 'static {
    /// One attempt.
    type Future: Future<Output = Result<Self::Output, HandlerError>> + Send + 'static;

    /// The output of an attempt that settles its deliveries.
    type Output: Output;

    /// Whether output is published with the progress. A constant, so that other handlers pay nothing
    /// per record.
    const PUBLISHES: bool = false;

    /// Whether a pending attempt is settled from outside, and not polled again. A constant, as
    /// above.
    const SETTLED_OUTSIDE: bool = false;

    /// Appends the attempts that were settled from outside to `taken`. Pending if there is none.
    fn poll_settled(&self, _taken: &mut VecDeque<Settlement>, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    /// Returns whether every further attempt would be abandoned.
    fn is_closed(&self) -> bool {
        false
    }

    /// Returns when the application got the delivery of an attempt that is settled from outside. `None`:
    /// not yet, or it is settled.
    fn begun_at(&self, _serial: u64) -> Option<Instant> {
        None
    }

    /// Returns the bounds of batches. `None`: single deliveries, those of different keys
    /// concurrently.
    fn batch(&self) -> Option<Batch> {
        None
    }

    /// Returns the stream to which output is published, in one transaction with the progress.
    /// `None`: progress is stored alone.
    fn output_stream(&self) -> Option<&Arc<str>> {
        None
    }

    /// Abandons attempts of a revoked or lost partition whose deliveries the application has not seen yet.
    fn reclaim(&self, _ownership: &Arc<Ownership>) {}

    /// Records the number of output records that were published.
    fn on_published(&self, _records: u64) {}

    /// Begins an attempt.
    fn attempt(
        &self,
        attempt: AttemptId,
        deliveries: impl Iterator<Item = Delivery>,
    ) -> Self::Future;
}

/// Identifies one attempt of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttemptId {
    /// The index of its assignment.
    pub(crate) index: usize,
    /// The first number of its deliveries.
    pub(crate) number: u64,
    /// Its place among the attempts of its assignment that are settled from outside, if it becomes one.
    pub(crate) place: usize,
    /// A different number for each attempt, so that a late settlement is not taken for one of a later attempt in
    /// the same place.
    pub(crate) serial: u64,
}

/// The result of an attempt that was settled from outside.
#[derive(Debug)]
pub(crate) struct Settlement {
    pub(crate) attempt: AttemptId,
    pub(crate) result: Result<(), HandlerError>,
}

/// The output of an attempt.
pub(crate) trait Output: Default + Send + 'static {
    /// Returns the records, in order.
    fn into_records(self) -> Vec<Record>;
}

/// A handler that publishes nothing.
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
    /// The handler failed or panicked.
    Failed(BatchFailure),
    /// The deliveries were taken back, or the consumer is gone.
    Abandoned,
}

/// Memory for the future of one attempt. It is reused, so a handler that is ready at once allocates
/// nothing.
pub(crate) struct ReusableFuture<W: Handler>(Pin<Box<Option<W::Future>>>);

impl<W: Handler> ReusableFuture<W> {
    pub(crate) fn new() -> Self {
        Self(Box::pin(None))
    }

    /// Drops the future of an attempt. A panic of its destructor is ignored.
    pub(crate) fn clear(&mut self) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.0.set(None)));
    }

    /// Begins an attempt and polls it once.
    pub(crate) fn begin(
        &mut self,
        handler: &Arc<W>,
        attempt: AttemptId,
        deliveries: impl Iterator<Item = Delivery>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<W::Output, HandlerError>> {
        let began = catch_unwind(AssertUnwindSafe(|| {
            self.0.set(Some(handler.attempt(attempt, deliveries)));
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
                .expect("an attempt was begun and has not completed");
            let result = attempt.poll(cx);
            if result.is_ready() {
                self.0.set(None);
            }
            result
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
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Err(HandlerError::Failed(BatchFailure::whole(
            Failure::panicked(message),
        )))
    }
}

/// A panic of a handler's destructor must not unwind into the member.
impl<W: Handler> Drop for ReusableFuture<W> {
    fn drop(&mut self) {
        self.clear();
    }
}
