//! Adapts the handlers of users to the runtime.

use std::future::Future;

use futures_util::TryFutureExt;
use futures_util::future::MapErr;

use crate::consumer::runtime::handler::{AttemptId, Handler, HandlerError};
use crate::{Batch, BatchFailure, Delivery, Failure};

/// A handler of single deliveries.
pub(super) struct Each<H>(pub(super) H);

impl<H, F, E> Handler for Each<H>
where
    H: Fn(Delivery) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Failure> + Send + 'static,
{
    // A function pointer, so that the future has a nameable type and needs no box.
    type Future = MapErr<F, fn(E) -> HandlerError>;
    type Output = ();

    fn attempt(
        &self,
        _: AttemptId,
        mut deliveries: impl Iterator<Item = Delivery>,
    ) -> Self::Future {
        let delivery = deliveries.next().expect("an attempt has a delivery");
        (self.0)(delivery)
            .map_err(|failure| HandlerError::Failed(BatchFailure::whole(failure.into())))
    }
}

/// A handler of batches.
pub(super) struct Batches<H> {
    pub(super) handler: H,
    pub(super) batch: Batch,
}

impl<H, F> Handler for Batches<H>
where
    H: Fn(Vec<Delivery>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), BatchFailure>> + Send + 'static,
{
    type Future = MapErr<F, fn(BatchFailure) -> HandlerError>;
    type Output = ();

    fn batch(&self) -> Option<Batch> {
        Some(self.batch)
    }

    fn attempt(&self, _: AttemptId, deliveries: impl Iterator<Item = Delivery>) -> Self::Future {
        (self.handler)(deliveries.collect()).map_err(HandlerError::Failed)
    }
}
