//! The one runtime, above all drivers: key order, retry, contiguous checkpoints, draining and
//! fencing.
//!
//! A member is one [`Member`](member::Member): a state machine that is polled on the task of
//! whoever runs it. It owns an [`Assignment`](assignment::Assignment) per partition, whose
//! [`Window`](window::Window) keeps key order and the watermark. A handler that is ready at once is
//! started, polled and settled in one go, in a [`FutureSlot`](handler::FutureSlot) that is reused; one
//! that is pending or has failed is driven by the [`ErrorHandler`](retry_loop::ErrorHandler) as a
//! future of its own.

pub(crate) mod assignment;
pub(crate) mod buffer_budget;
pub(crate) mod control_state;
pub(crate) mod counters;
pub(crate) mod dead_letter_sink;
mod guarded;
pub(crate) mod handler;
pub(crate) mod member;
pub(crate) mod output_buffer;
pub(crate) mod retry_loop;
pub(crate) mod window;
