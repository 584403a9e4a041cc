//! The suite finds bugs of drivers: each mutant of the memory driver breaks one sentence of the contract,
//! and the case for this sentence must fail on it, for that reason. On the driver without the bug,
//! the same case must pass.
//!
//! A new promise to drivers needs a case, and a case that cannot fail proves nothing: plant the
//! bug here.

mod backend;
mod broker;
mod bug;
mod membership;
mod producer;

use std::collections::BTreeSet;
use std::process::ExitCode;

use broker::{Clock, MutantBroker};
use bug::{Bug, MUTANTS, Mutant};
use conformance::{Setup, cases};
use libtest_mimic::{Arguments, Failed, Trial};

fn run(case: &str, bug: Option<Bug>) -> Result<(), String> {
    let clock = Clock::of(case);
    let setup = Setup::new(move |_| async move { MutantBroker::open(bug, clock) });
    let setup = match clock {
        Clock::Paused => setup.paused_time(),
        Clock::Running => setup,
    };
    setup.run(cases::named(case))
}

fn is_found(mutant: &Mutant) -> Result<(), Failed> {
    match run(mutant.case, Some(mutant.bug)) {
        Err(failure) if failure.contains(mutant.reason) => Ok(()),
        Err(failure) => {
            let (case, reason) = (mutant.case, mutant.reason);
            Err(format!("{case} failed, but not because of {reason:?}:\n{failure}").into())
        }
        Ok(()) => Err(format!("{} passes with this bug", mutant.case).into()),
    }
}

fn trials() -> Vec<Trial> {
    let cases: BTreeSet<&str> = MUTANTS.iter().map(|mutant| mutant.case).collect();
    let controls = cases.into_iter().map(|case| {
        let run = move || Ok(run(case, None)?);
        Trial::test(format!("without_a_bug::{case}"), run)
    });
    let mutants = MUTANTS.iter().map(|mutant| {
        let name = format!("{:?}::{}", mutant.bug, mutant.case);
        Trial::test(name, move || is_found(mutant))
    });
    controls.chain(mutants).collect()
}

fn main() -> ExitCode {
    libtest_mimic::run(&Arguments::from_args(), trials()).exit_code()
}
