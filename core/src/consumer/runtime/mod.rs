//! The runtime above all drivers: key order, retry, contiguous checkpoints, draining and fencing.
//!
//! A [`Member`](member::Member) is a state machine that is polled on the task that runs it. It owns
//! an [`Assignment`](assignment::Assignment) per partition, whose [`Window`](window::Window) keeps key
//! order and the watermark. A handler that is ready at once is started, polled and settled in place,
//! in the memory of a [`ReusableFuture`](handler::ReusableFuture). A handler that is pending or has failed
//! becomes a [`Run`](run::Run): a future of its own while an attempt is in flight, plain data while it
//! waits for the next one. The deliveries that a pull consumer holds are plain data too: their attempts are settled
//! from outside, and the member takes all settlements at once. The
//! [`ErrorHandler`](error_handler::ErrorHandler) decides what follows a failure.

pub(crate) mod assignment;
pub(crate) mod bisection;
pub(crate) mod buffer_budget;
pub(crate) mod control_state;
pub(crate) mod counters;
pub(crate) mod dead_letter_sink;
pub(crate) mod due_queue;
pub(crate) mod error_handler;
mod guarded;
pub(crate) mod handler;
pub(crate) mod member;
pub(crate) mod output_buffer;
pub(crate) mod published_stats;
pub(crate) mod refused_delivery;
pub(crate) mod run;
pub(crate) mod spare_memory;
pub(crate) mod stall;
pub(crate) mod window;
