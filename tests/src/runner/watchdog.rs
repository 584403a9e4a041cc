//! Runs a case on its own thread and runtime, and reports when it does not end.
//!
//! The runtime's clock alone is not enough: a task that never waits keeps a paused clock from advancing,
//! and one that blocks its thread keeps a timer of that thread from firing.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::runtime::{Builder, Runtime};

use super::panics::Panics;
use crate::harness::last_wait;
use crate::{Harness, Timing};

/// How long the first harness may take to start. Images of brokers may be built first.
const START_LIMIT: Duration = Duration::from_secs(20 * 60);

/// How much longer than its limit a case may take in real time, to close its connections.
const REAL_TIME_GRACE: Duration = Duration::from_secs(60);

/// How long a case with paused time may compute. The longest takes a second, or several on a busy machine.
const PAUSED_TIME_LIMIT: Duration = Duration::from_secs(60);

/// How long the tasks of a case that failed may take to end.
const TEARDOWN: Duration = Duration::from_secs(10);

/// The clock of a case's runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    /// The real clock, with several worker threads, as in an application.
    Real,
    /// A clock that advances when all tasks wait.
    Paused,
}

impl Time {
    fn runtime(self, panics: &Panics) -> Runtime {
        let mut builder = match self {
            // Few threads, because many cases run at once.
            Self::Real => {
                let mut builder = Builder::new_multi_thread();
                builder.worker_threads(2);
                builder
            }
            Self::Paused => {
                let mut builder = Builder::new_current_thread();
                builder.start_paused(true);
                builder
            }
        };
        let panics = panics.clone();
        builder
            .enable_all()
            .on_thread_start(move || panics.capture_this_thread())
            .build()
            .expect("the system has threads left for a runtime")
    }
}

/// Runs one body, and bounds its duration.
#[derive(Debug)]
pub(super) struct Watchdog {
    pub(super) thread_name: String,
    pub(super) time: Time,
    /// The limit on the wall clock, if it is not the default.
    pub(super) wall_limit: Option<Duration>,
}

/// The reports of the case's thread.
enum Report<T> {
    Started(Timing),
    Ended(Result<T, String>),
}

impl Watchdog {
    /// Starts a harness and runs `body` with it. If it does not end in time, its thread is left behind.
    ///
    /// # Errors
    /// The reason of the failure, with the case's panics.
    pub(super) fn run<T, F>(
        self,
        start: impl FnOnce() -> LocalBoxFuture<'static, Arc<dyn Harness>> + Send + 'static,
        body: impl FnOnce(Arc<dyn Harness>) -> F + Send + 'static,
    ) -> Result<T, String>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let panics = Panics::default();
        let (reports, reported) = mpsc::channel();
        let (time, panics_there) = (self.time, panics.clone());
        let case = move || run_here(time, &panics_there, &reports, start, body);
        let builder = thread::Builder::new().name(self.thread_name.clone());
        let thread = match builder.spawn(case) {
            Ok(thread) => thread,
            Err(error) => return Err(format!("no thread for the case: {error}")),
        };
        match self.wait(&reported) {
            Ok(result) => {
                // It drops its clones of shared brokers before the process ends.
                let _ = thread.join();
                result
            }
            Err(reason) => Err(panics.failure(reason)),
        }
    }

    /// Waits for the result of the case.
    ///
    /// # Errors
    /// The reason why there is none.
    fn wait<T>(&self, reported: &Receiver<Report<T>>) -> Result<Result<T, String>, String> {
        let mut limit = self.wall_limit.unwrap_or(START_LIMIT);
        let mut what = "the harness did not start";
        loop {
            match reported.recv_timeout(limit) {
                Ok(Report::Started(timing)) => {
                    limit = self.wall_limit.unwrap_or(match self.time {
                        Time::Real => timing.case_limit() + REAL_TIME_GRACE,
                        Time::Paused => PAUSED_TIME_LIMIT,
                    });
                    what = "a task spins or blocks its thread: the case did not end";
                }
                Ok(Report::Ended(result)) => return Ok(result),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("{what} within {limit:?} on the wall clock"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("the thread of the case ended early".to_owned());
                }
            }
        }
    }
}

fn run_here<T, F>(
    time: Time,
    panics: &Panics,
    reports: &Sender<Report<T>>,
    start: impl FnOnce() -> LocalBoxFuture<'static, Arc<dyn Harness>>,
    body: impl FnOnce(Arc<dyn Harness>) -> F,
) where
    F: Future<Output = T>,
{
    panics.capture_this_thread();
    let runtime = time.runtime(panics);
    let started = |timing| {
        // Nobody receives it if the runner has given up.
        let _ = reports.send(Report::Started(timing));
    };
    let case = async {
        let harness = start().await;
        let timing = harness.timing();
        started(timing);
        let limit = timing.case_limit();
        let ended = tokio::time::timeout(limit, body(harness)).await;
        ended.map_err(|_| {
            let passed = last_wait().map_or("it passed no wait".to_owned(), |at| {
                format!("the last wait that it passed is at {at}")
            });
            format!("the case did not end within {limit:?}: {passed}")
        })
    };
    let result = match runtime.block_on(AssertUnwindSafe(case).catch_unwind()) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(reason)) => Err(panics.failure(reason)),
        Err(panic) => Err(panics.failure_by_panic(&*panic)),
    };
    match &result {
        // A pass includes the end of the case's tasks.
        Ok(_) => drop(runtime),
        Err(_) => runtime.shutdown_timeout(TEARDOWN),
    }
    let _ = reports.send(Report::Ended(result));
}
