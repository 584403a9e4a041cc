use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::listing;
use super::slots::Slots;
use super::watchdog::{Time, Watchdog};
use crate::{Case, Harness};

/// The users of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerScope {
    /// Any number of cases at once. A separate broker for each case is acceptable too.
    Shared,
    /// One case, which restarts the broker.
    OneCase,
}

type Start = dyn Fn(BrokerScope) -> LocalBoxFuture<'static, Arc<dyn Harness>> + Send + Sync;

/// A variant of a backend in which the cases run, such as one of its protocols.
pub struct Setup {
    name: Option<String>,
    start: Arc<Start>,
    /// The name of each case that does not run, and the reason.
    ignored: Vec<(&'static str, &'static str)>,
    slots: Option<Slots>,
    time: Time,
    wall_limit: Option<Duration>,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("name", &self.name)
            .field("time", &self.time)
            .field("ignored", &self.ignored)
            .finish_non_exhaustive()
    }
}

impl Setup {
    /// Creates a setup. `start` creates the harness of one case, on that case's runtime.
    pub fn new<H, F>(start: impl Fn(BrokerScope) -> F + Send + Sync + 'static) -> Self
    where
        H: Harness,
        F: Future<Output = H> + 'static,
    {
        let start = move |scope| {
            let harness = start(scope);
            async move { Arc::new(harness.await) as Arc<dyn Harness> }.boxed_local()
        };
        Self {
            name: None,
            start: Arc::new(start),
            ignored: Vec::new(),
            slots: None,
            time: Time::Real,
            wall_limit: None,
        }
    }

    /// Sets the prefix of its tests, without the `::` that follows it. Default: none.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Marks cases as ignored, by their names. Their tests show the reason.
    #[must_use]
    pub fn ignore(
        mut self,
        reason: &'static str,
        cases: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let cases = cases.into_iter().map(|case| (case, reason));
        self.ignored.extend(cases);
        self
    }

    /// Sets how many cases of this setup run concurrently. Default: as many as of the whole suite.
    #[must_use]
    pub fn at_once(mut self, cases: usize) -> Self {
        self.slots = Some(Slots::new(cases));
        self
    }

    /// Pauses the clock: each case runs on one thread, and time advances when all its tasks wait. Only
    /// for a backend that runs within the process, without threads or sockets of its own.
    #[must_use]
    pub fn paused_time(mut self) -> Self {
        self.time = Time::Paused;
        self
    }

    /// Sets how long a case may take on the wall clock. Default: [`Timing::case_limit`] and a minute, or
    /// a minute with paused time.
    ///
    /// [`Timing::case_limit`]: crate::Timing::case_limit
    #[must_use]
    pub fn wall_limit(mut self, limit: Duration) -> Self {
        self.wall_limit = Some(limit);
        self
    }

    /// Runs one case.
    ///
    /// # Errors
    /// The reason of the failure, with the case's panics.
    pub fn run(&self, case: &'static Case) -> Result<(), String> {
        let body = move |harness: Arc<dyn Harness>| async move { case.run(harness).await };
        self.run_on_harness(case.name, case.broker_scope(), body)
    }

    /// Checks that this setup ignores exactly the cases whose needs the backend does not meet.
    ///
    /// # Errors
    /// All mismatches, one per line.
    pub fn check(&self) -> Result<(), String> {
        listing::check(self)
    }

    /// Starts a harness, and runs `body` with it.
    pub(super) fn run_on_harness<T, F>(
        &self,
        name: &str,
        scope: BrokerScope,
        body: impl FnOnce(Arc<dyn Harness>) -> F + Send + 'static,
    ) -> Result<T, String>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let _slot = self.slots.as_ref().map(Slots::acquire);
        let start = self.start.clone();
        let watchdog = Watchdog {
            thread_name: self.test_name(name),
            time: self.time,
            wall_limit: self.wall_limit,
        };
        watchdog.run(move || start(scope), body)
    }

    /// Returns the name of the test that runs a case.
    pub(super) fn test_name(&self, case: &str) -> String {
        match &self.name {
            Some(setup) => format!("{setup}::{case}"),
            None => case.to_owned(),
        }
    }

    /// Returns the reason why a case is ignored, if it is.
    pub(super) fn ignores(&self, case: &str) -> Option<&'static str> {
        let mut ignored = self.ignored.iter();
        let found = ignored.find(|(name, _)| *name == case);
        found.map(|(_, reason)| *reason)
    }

    /// Returns the names of the ignored cases, as they were given.
    pub(super) fn ignored(&self) -> impl Iterator<Item = &'static str> {
        self.ignored.iter().map(|(name, _)| *name)
    }
}
