//! Attempts that were not ready at once, and dead letters that are being stored.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use crate::Result;
use crate::consumer::delivery::Ownership;
use crate::consumer::runtime::dead_letter_sink::DeadRecord;
use crate::consumer::runtime::error_handler::ErrorHandler;
use crate::consumer::runtime::handler::{Handler, HandlerError, ReusableFuture};
use crate::consumer::runtime::run::{Run, RunStatus};

/// A run with an attempt, or with dead letters that are being stored. It ends at once when its
/// partition is lost.
pub(super) struct InFlight<W: Handler> {
    pub(super) index: usize,
    pub(super) ownership: Arc<Ownership>,
    pub(super) status: RunStatus,
    future: BoxFuture<'static, Completed<W>>,
}

/// A run whose attempt or dead letters have completed.
pub(super) struct Completed<W: Handler> {
    pub(super) index: usize,
    pub(super) ownership: Arc<Ownership>,
    pub(super) run: Run,
    pub(super) ended: FinishedWork<W>,
}

pub(super) enum FinishedWork<W: Handler> {
    /// An attempt of the run's next part. `None`: the partition was lost in the meantime.
    Attempt(ReusableFuture<W>, Option<Result<W::Output, HandlerError>>),
    /// The dead letters of these numbers. `None`: the partition was lost in the meantime.
    Letters(Vec<u64>, Option<Result<Vec<u64>>>),
}

impl<W: Handler> InFlight<W> {
    /// Waits for the attempt that was begun in `attempt_future`.
    ///
    /// An attempt that takes longer than `limit` is dropped.
    pub(super) fn attempt(
        index: usize,
        ownership: Arc<Ownership>,
        run: Run,
        mut attempt_future: ReusableFuture<W>,
        limit: Option<Duration>,
    ) -> Self {
        let status = RunStatus::of(&run);
        Self::new(index, ownership.clone(), status, async move {
            let attempt = async {
                let Some(limit) = limit else {
                    return attempt_future.finish().await;
                };
                let result = timeout(limit, attempt_future.finish()).await;
                result.unwrap_or_else(|_| Err(run.time_out(limit)))
            };
            let result = tokio::select! {
                biased;
                () = ownership.lost() => None,
                result = attempt => Some(result),
            };
            attempt_future.clear();
            Completed {
                index,
                ownership,
                run,
                ended: FinishedWork::Attempt(attempt_future, result),
            }
        })
    }

    /// Stores the dead letters of a run.
    pub(super) fn letters(
        index: usize,
        ownership: Arc<Ownership>,
        run: Run,
        letters: Vec<(u64, DeadRecord)>,
        errors: Arc<ErrorHandler>,
    ) -> Self {
        let numbers: Vec<u64> = letters.iter().map(|(number, _)| *number).collect();
        let mut status = RunStatus::of(&run);
        if let Some((number, letter)) = letters.first() {
            status.first = *number;
            status.attempt = letter.delivery.attempt();
        }
        Self::new(index, ownership.clone(), status, async move {
            let stored = tokio::select! {
                biased;
                () = ownership.lost() => None,
                stored = errors.send_letters(letters) => Some(stored),
            };
            Completed {
                index,
                ownership,
                run,
                ended: FinishedWork::Letters(numbers, stored),
            }
        })
    }

    fn new(
        index: usize,
        ownership: Arc<Ownership>,
        status: RunStatus,
        future: impl Future<Output = Completed<W>> + Send + 'static,
    ) -> Self {
        Self {
            index,
            ownership,
            status,
            future: Box::pin(future),
        }
    }
}

impl<W: Handler> Future for InFlight<W> {
    type Output = Completed<W>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Completed<W>> {
        self.future.as_mut().poll(cx)
    }
}
