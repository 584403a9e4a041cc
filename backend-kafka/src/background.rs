//! Runs the blocking work of async calls.

use std::thread;

use millstream_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use crate::error;

/// Runs `work` on its own thread.
///
/// It does not use the runtime's blocking pool: handlers may fill the pool for any length of time, and the runtime
/// does not shut down before they end.
///
/// # Errors
/// `Unavailable` if no thread can be started: nothing is done. `OutcomeUnknown` if the work panics: a
/// transaction may be stored by then, and must not be published again.
///
/// # Cancel safety
/// The work of a dropped call continues.
pub(crate) async fn run<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    run_and_drop(operation, || (work(), ())).await
}

/// Runs work like [`run`], and drops a second value of the work on that thread, without waiting for the drop, which
/// may block.
pub(crate) async fn run_and_drop<T: Send + 'static, L>(
    operation: &'static str,
    work: impl FnOnce() -> (T, L) + Send + 'static,
) -> Result<T> {
    let (done, result) = oneshot::channel();
    let thread = thread::Builder::new().name("kafka-background".into());
    let started = thread.spawn(move || {
        let (returned, _left) = work();
        // The caller may be gone.
        let _ = done.send(returned);
    });
    started.map_err(|failed| error::no_thread(operation, failed))?;
    result.await.map_err(|_| {
        let message = "the thread that does it has panicked";
        Error::new(ErrorKind::OutcomeUnknown, operation, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_while_the_runtime_has_no_thread_to_spare() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        runtime.spawn_blocking(move || ended.recv());
        assert_eq!(runtime.block_on(run("join", || 7)).unwrap(), 7);
        end.send(()).unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let failed = run("join", || std::panic::resume_unwind(Box::new("simulated"))).await;
        let failed: Result<()> = failed;
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    }
}
