//! Random fleets with random faults on the memory backend: none breaks a promise, and each run can be
//! replayed exactly.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use conformance::history::Event;
use conformance::simulation;

/// Runs seeds on all cores.
fn play(seeds: std::ops::Range<u64>) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let share = |core| {
            let seeds = seeds.clone();
            scope.spawn(move || {
                let mine = seeds.filter(|seed| seed % cores == core);
                let played = mine.map(simulation::run);
                let failed = played.filter(|report| !report.is_clean());
                failed.map(|report| report.to_string()).collect::<Vec<_>>()
            })
        };
        let workers: Vec<_> = (0..cores).map(share).collect();
        workers
            .into_iter()
            .flat_map(|worker| {
                worker
                    .join()
                    .expect("a seed ends in a report, not in a panic")
            })
            .collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn no_seed_breaks_a_promise() {
    play(0..300);
}

#[test]
fn seeds_have_streams_that_are_created_again_and_read() {
    let (mut deleted, mut handled_again) = (0, 0);
    for seed in 0..100 {
        let history = simulation::run(seed).history;
        deleted += history.count(|event| matches!(event, Event::Deleted { .. }));
        handled_again += history.count(|event| match event {
            Event::Began(handling) => handling.by.partition.stream().contains('~'),
            _ => false,
        });
    }
    assert!(
        deleted > 5 && handled_again > 500,
        "{deleted} streams were deleted, {handled_again} records of the next ones were handled"
    );
}

#[test]
fn a_seed_replays_byte_for_byte() {
    for seed in 0..40 {
        let lines = || {
            let mut lines = Vec::new();
            simulation::run(seed).history.write_to(&mut lines).unwrap();
            lines
        };
        assert!(lines() == lines(), "seed {seed} is not the same twice");
    }
}
