//! The simulation finds bugs: each one that is planted on purpose, within 1,000 seeds.
//!
//! A build has the bugs only with `RUSTFLAGS="--cfg millstream_failpoints"`; `tests/run` builds so,
//! into a folder of its own. In any other build the test is shown as ignored.

#[test]
#[cfg(not(millstream_failpoints))]
#[ignore = "nothing is planted in this build, it needs RUSTFLAGS=\"--cfg millstream_failpoints\""]
fn each_planted_bug_is_found_and_nothing_else() {
    panic!("build with RUSTFLAGS=\"--cfg millstream_failpoints\" to run this test");
}

#[cfg(millstream_failpoints)]
mod failpoints {
    use std::ops::Range;
    use std::thread;

    use conformance::checker::Violation;
    use conformance::simulation;
    use millstream_core::failpoint::{Failpoint, enable};

    const MOST_SEEDS: u64 = 1_000;
    /// Played side by side; what a hunt finds does not depend on it.
    const AT_ONCE: u64 = 16;

    /// What a bug does to a run, in the judge's words.
    fn is_sign_of(failpoint: Failpoint, violation: &Violation) -> bool {
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
            Failpoint::PanicSettles => matches!(
                violation,
                Lost { .. } | CheckpointPastUnsettled { .. } | OutOfOrder { .. }
            ),
        }
    }

    /// Plays seeds side by side, and answers what `look` makes of each, in their order.
    fn play<T: Send>(
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
                .flat_map(|worker| worker.join().expect("a seed is judged, not a panic"))
                .collect()
        });
        found.sort_by_key(|(seed, _)| *seed);
        found.into_iter().map(|(_, found)| found).collect()
    }

    /// Plays seeds until one shows the planted bug.
    fn hunt(failpoint: Failpoint) -> Option<(u64, Violation)> {
        let sign = |report: simulation::Report| {
            let mut violations = report.verdict.violations.into_iter();
            let sign = violations.find(|violation| is_sign_of(bug, violation));
            sign.map(|violation| (report.seed, violation))
        };
        (0..MOST_SEEDS)
            .step_by(AT_ONCE as usize)
            .find_map(|first| play(first..first + AT_ONCE, sign).into_iter().next())
    }

    // One test, since a bug is planted in the whole process.
    #[test]
    fn each_planted_bug_is_found_and_nothing_else() {
        let mut missed = Vec::new();
        let mut farthest = 0;
        for bug in Failpoint::ALL {
            enable(Some(bug));
            match hunt(bug) {
                Some((seed, violation)) => {
                    println!("{bug:?}: found after {} seeds: {violation}", seed + 1);
                    farthest = farthest.max(seed + 1);
                }
                None => missed.push(bug),
            }
        }
        enable(None);
        assert!(
            missed.is_empty(),
            "not found in {MOST_SEEDS} seeds: {missed:?}"
        );
        let failed = play(0..farthest, |report| {
            (!report.is_clean()).then(|| report.to_string())
        });
        assert!(
            failed.is_empty(),
            "with nothing planted: {}",
            failed.join("\n")
        );
        println!("nothing planted: {farthest} seeds are clean");
    }
}
