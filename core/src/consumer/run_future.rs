use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::{ConsumerHandle, Result};

/// Future of a running member, to be awaited or spawned; see
/// [`ConsumerGroup::run`](crate::ConsumerGroup::run).
///
/// It does nothing before it is polled.
#[must_use = "a member runs only while it is awaited"]
pub struct RunFuture {
    control: ConsumerHandle,
    run: Pin<Box<dyn Future<Output = Result<()>> + Send>>,
}

impl RunFuture {
    pub(crate) fn new(
        control: ConsumerHandle,
        run: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Self {
        Self {
            control,
            run: Box::pin(run),
        }
    }

    /// Returns a handle for monitoring and controlling this member.
    pub fn handle(&self) -> ConsumerHandle {
        self.control.clone()
    }
}

impl Future for RunFuture {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.run.as_mut().poll(cx)
    }
}

impl fmt::Debug for RunFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunFuture")
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}
