//! Runs the cases of the suite as the tests of one backend.

mod lazy_broker;
mod listing;
mod panics;
mod setup;
mod slots;
mod watchdog;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use crate::cases;

pub use lazy_broker::LazyBroker;
pub use setup::{BrokerScope, Setup};

/// All cases, in each setup of a backend, as the tests of a target with `harness = false`.
///
/// Command-line arguments are those of libtest: filters, `--exact`, `--skip`, `--ignored`, `--list`,
/// `--test-threads`.
///
/// A case runs on its own thread and runtime, and always ends: [`Timing::case_limit`] bounds it on
/// the runtime's clock, and [`Setup::wall_limit`] on the wall clock, for a case that spins or blocks its
/// thread. Panics of a case are kept, and printed if it fails: first the reason of the failure, then
/// those of other tasks in their order.
///
/// [`Timing::case_limit`]: crate::Timing::case_limit
#[derive(Debug)]
pub struct Suite {
    setups: Vec<Arc<Setup>>,
    at_once: Option<usize>,
}

impl Suite {
    /// Creates the suite of a backend.
    pub fn new(setups: impl IntoIterator<Item = Setup>) -> Self {
        Self {
            setups: setups.into_iter().map(Arc::new).collect(),
            at_once: None,
        }
    }

    /// Sets how many cases run concurrently. Default: the number of cores of the machine. `--test-threads`
    /// takes precedence.
    #[must_use]
    pub fn at_once(mut self, cases: usize) -> Self {
        self.at_once = Some(cases);
        self
    }

    /// Runs the cases that the command line selects, prints the results, and returns the exit code.
    pub fn run(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        arguments.test_threads = arguments.test_threads.or(self.at_once);
        libtest_mimic::run(&arguments, self.trials()).exit_code()
    }

    fn trials(self) -> Vec<Trial> {
        let mut trials = Vec::new();
        // The setups alternate, so that few cases wait for a slot of a setup that runs few at once.
        for case in cases::all() {
            for setup in &self.setups {
                let run = {
                    let setup = setup.clone();
                    move || Ok(setup.run(case)?)
                };
                let trial = Trial::test(setup.test_name(case.name), run);
                trials.push(match setup.ignores(case.name) {
                    Some(reason) => trial.with_ignored_flag(true).with_kind(reason),
                    None => trial,
                });
            }
        }
        for setup in self.setups {
            let name = setup.test_name("only_cases_with_unmet_needs_are_ignored");
            trials.push(Trial::test(name, move || Ok(setup.check()?)));
        }
        trials
    }
}
