//! Handlers of users, as the runtime's work.

use std::error::Error as StdError;
use std::future::Future;
use std::sync::Arc;

use futures_util::TryFutureExt;
use futures_util::future::MapErr;

use crate::runtime::attempt::{Fault, Work};
use crate::{BatchFailure, Delivery};

/// A handler of single deliveries.
pub(super) struct Each<H>(pub(super) H);

impl<H, F, E> Work for Each<H>
where
    H: Fn(Delivery) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Box<dyn StdError + Send + Sync>> + Send + 'static,
{
    // A function pointer, so that the future has a name and needs no box.
    type Attempt = MapErr<F, fn(E) -> Fault>;
    type Made = ();

    fn run_length(&self) -> Option<usize> {
        None
    }

    fn publishes_to(&self) -> Option<&Arc<str>> {
        None
    }

    fn attempt(&self, mut deliveries: impl Iterator<Item = Delivery>) -> Self::Attempt {
        let delivery = deliveries.next().expect("an attempt has a delivery");
        (self.0)(delivery).map_err(|reason| Fault::Failed(BatchFailure::whole(reason.into())))
    }
}

/// A handler of batches.
pub(super) struct Batches<H> {
    pub(super) handler: H,
    pub(super) records: usize,
}

impl<H, F> Work for Batches<H>
where
    H: Fn(Vec<Delivery>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), BatchFailure>> + Send + 'static,
{
    type Attempt = MapErr<F, fn(BatchFailure) -> Fault>;
    type Made = ();

    fn run_length(&self) -> Option<usize> {
        Some(self.records)
    }

    fn publishes_to(&self) -> Option<&Arc<str>> {
        None
    }

    fn attempt(&self, deliveries: impl Iterator<Item = Delivery>) -> Self::Attempt {
        (self.handler)(deliveries.collect()).map_err(Fault::Failed)
    }
}
