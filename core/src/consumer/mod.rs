//! Consuming: groups, their members, and the runtime that keeps the promises.

mod batch;
mod batch_failure;
mod dead_letters;
mod delivery;
mod failure;
mod group;
mod handle;
mod handlers;
mod handover;
mod options;
mod pending_delivery;
mod pull;
mod retry;
mod run_future;
mod runtime;
mod stats;
mod transform;

pub use batch::Batch;
pub use batch_failure::BatchFailure;
pub use delivery::Delivery;
pub use failure::{Failure, FailureKind};
pub use group::ConsumerGroup;
pub use handle::ConsumerHandle;
pub use options::OnDataLoss;
pub use pending_delivery::PendingDelivery;
pub use pull::Consumer;
pub use retry::{DeadLetter, OnExhausted, Retry};
pub use run_future::RunFuture;
pub use stats::{ConsumerStats, OldestUnsettled, PartitionStats};
