//! The one runtime, above all drivers: key order, retry, contiguous checkpoints, draining and
//! fencing.
//!
//! A member is one [`Session`](session::Session): a state machine that is polled on the task of
//! whoever runs it. It owns an [`Assignment`](assignment::Assignment) per partition, whose
//! [`Window`](window::Window) keeps key order and watermark. A handler that is ready at once is
//! begun, polled and settled in one go, in a [`Slot`](attempt::Slot) that is used again; one that
//! is pending or failed goes down the [`FailurePath`](failure::FailurePath) as a future of its own.

pub(crate) mod assignment;
pub(crate) mod attempt;
pub(crate) mod board;
pub(crate) mod counters;
pub(crate) mod failure;
pub(crate) mod options;
pub(crate) mod session;
pub(crate) mod staging;
pub(crate) mod stats;
pub(crate) mod window;
