//! The simulation finds bugs: each failpoint breaks one promise, and is found within 1,000 seeds.
//!
//! A build has the failpoints only with `RUSTFLAGS="--cfg millstream_failpoints"`; `tests/run` builds them
//! into a separate folder. In any other build the test is reported as ignored.

#[test]
#[cfg(not(millstream_failpoints))]
#[ignore = "this build has no failpoints, they need RUSTFLAGS=\"--cfg millstream_failpoints\""]
fn each_failpoint_is_found_and_nothing_else() {
    panic!("build with RUSTFLAGS=\"--cfg millstream_failpoints\" to run this test");
}

#[cfg(millstream_failpoints)]
mod failpoints {
    use std::ops::Range;
    use std::thread;

    use conformance::checker::Violation;
    use conformance::simulation;
    use millstream_core::failpoint::{Failpoint, enable};

    const MAX_SEEDS: u64 = 1_000;
    /// The number of seeds that run concurrently; the result does not depend on it.
    const CONCURRENT_SEEDS: u64 = 16;

    /// Returns whether the failpoint causes this violation.
    fn is_caused_by(failpoint: Failpoint, violation: &Violation) -> bool {
        use Violation::*;

        match failpoint {
            Failpoint::CheckpointGap => {
                matches!(violation, CheckpointPastUnsettled { .. } | Lost { .. })
            }
            Failpoint::OrderLostOnRetry => matches!(
                violation,
                Overtaken { .. } | OutOfOrder { .. } | Overlap { .. }
            ),
            Failpoint::DrainSkipped => matches!(
                violation,
                Repeated { .. } | Overlap { .. } | StaleHandling { .. }
            ),
            Failpoint::FenceIgnored => matches!(violation, StaleCheckpoint { .. }),
            Failpoint::ChildBeforeParent => matches!(violation, OutOfOrder { .. } | Overlap { .. }),
            Failpoint::ReceiptBeforeStored => {
                matches!(violation, WrongReceipt { .. } | Lost { .. })
            }
            Failpoint::ProducerOvertakes => matches!(violation, ReceiptOrder { .. }),
            Failpoint::RefusalPassed => {
                matches!(violation, CheckpointPastUnsettled { .. } | Lost { .. })
            }
            Failpoint::TombstoneEmptied => matches!(violation, Altered { .. }),
            Failpoint::RecreatedSkipped => {
                matches!(violation, Lost { .. } | CheckpointPastUnsettled { .. })
            }
            Failpoint::EpochsRestart => matches!(violation, EpochNotGrown { .. }),
            Failpoint::PanicSettles => matches!(
                violation,
                Lost { .. } | CheckpointPastUnsettled { .. } | OutOfOrder { .. }
            ),
        }
    }

    /// Runs seeds concurrently, and returns the result of `look` for each report, in the order of seeds.
    fn run_seeds<T: Send>(
        seeds: Range<u64>,
        look: impl Fn(simulation::Report) -> Option<T> + Sync,
    ) -> Vec<T> {
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let look = &look;
        let mut found: Vec<(u64, T)> = thread::scope(|scope| {
            let workers: Vec<_> = (0..cores)
                .map(|core| {
                    let mine = seeds.clone().filter(move |seed| seed % cores == core);
                    scope.spawn(move || {
                        let looked = mine.map(|seed| (seed, look(simulation::run(seed))));
                        looked
                            .filter_map(|(seed, found)| Some((seed, found?)))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| {
                    worker
                        .join()
                        .expect("a seed ends in a report, not in a panic")
                })
                .collect()
        });
        found.sort_by_key(|(seed, _)| *seed);
        found.into_iter().map(|(_, found)| found).collect()
    }

    /// Runs seeds until one shows the enabled failpoint.
    fn find(failpoint: Failpoint) -> Option<(u64, Violation)> {
        let caused = |report: simulation::Report| {
            let mut violations = report.verdict.violations.into_iter();
            let violation = violations.find(|violation| is_caused_by(failpoint, violation));
            violation.map(|violation| (report.seed, violation))
        };
        (0..MAX_SEEDS)
            .step_by(CONCURRENT_SEEDS as usize)
            .find_map(|first| {
                run_seeds(first..first + CONCURRENT_SEEDS, &caused)
                    .into_iter()
                    .next()
            })
    }

    // One test, because a failpoint is enabled in the whole process.
    #[test]
    fn each_failpoint_is_found_and_nothing_else() {
        let mut missed = Vec::new();
        let mut farthest = 0;
        for failpoint in Failpoint::ALL {
            enable(Some(failpoint));
            match find(failpoint) {
                Some((seed, violation)) => {
                    println!("{failpoint:?}: found after {} seeds: {violation}", seed + 1);
                    farthest = farthest.max(seed + 1);
                }
                None => missed.push(failpoint),
            }
        }
        enable(None);
        assert!(
            missed.is_empty(),
            "not found in {MAX_SEEDS} seeds: {missed:?}"
        );
        let failed = run_seeds(0..farthest, |report| {
            (!report.is_clean()).then(|| report.to_string())
        });
        assert!(
            failed.is_empty(),
            "with no failpoint enabled: {}",
            failed.join("\n")
        );
        println!("no failpoint enabled: {farthest} seeds are clean");
    }
}
