//! Each record arrives once, in order, to shard end, in any order of events.

use std::time::Duration;

use fastrand::Rng;
use millstream_core::ErrorKind;
use tokio::time::sleep;

use super::super::{ReadEvent, ResumePoint, RetrievalMode, Settings};
use super::fake::{End, Fake};
use super::registry::fan_out;
use super::{for_each_seed, position, run_with, settings};

const PASSING: [ErrorKind; 3] = [
    ErrorKind::Throttled,
    ErrorKind::Unavailable,
    ErrorKind::Timeout,
];

async fn storm(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let fake = Fake::new(1..=rng.u64(1..30));
    let mut stored = fake.lock().records.len() as u64;
    let begin = rng.u64(0..=stored);
    fake.lock().end = *rng
        .choice(&[End::NoNumber, End::NumberAndChildren, End::Never])
        .expect("there are some");
    let mode = match rng.bool() {
        true => RetrievalMode::Polling,
        false => fan_out(),
    };
    let mut run = run_with(
        &fake,
        Settings {
            mode,
            batch_records: rng.usize(1..12),
            ..settings(match begin {
                0 => ResumePoint::Earliest,
                _ => ResumePoint::After(position(&begin.to_string())),
            })
        },
    );
    let mut next = begin + 1;
    for _ in 0..rng.usize(5..40) {
        match rng.u32(0..8) {
            0 => {
                let more = rng.u64(1..25);
                fake.store(stored + 1..=stored + more);
                stored += more;
            }
            1 => {
                let kind = *rng.choice(&PASSING).expect("there are some");
                let mut inner = fake.lock();
                for _ in 0..rng.usize(1..4) {
                    inner.iterator_faults.push_back(kind);
                    inner.records_faults.push_back(kind);
                    inner.subscribe_faults.push_back(kind);
                    inner.push_faults.push_back(kind);
                }
            }
            2 => {
                run.reader.pause();
                sleep(Duration::from_secs(rng.u64(1..700))).await;
                run.reader.resume();
            }
            3 => sleep(Duration::from_millis(rng.u64(0..400_000))).await,
            4 => fake.lock().empty_answers = rng.usize(0..4),
            5 => fake.lock().page = rng.usize(1..40),
            6 => fake.lock().silent = rng.bool(),
            _ => {
                // Any request is rejected once. A permanent rejection is reported.
                let mut inner = fake.lock();
                if !inner.records_faults.contains(&ErrorKind::Invalid) {
                    inner.records_faults.push_back(ErrorKind::Invalid);
                }
                if !inner.subscribe_faults.contains(&ErrorKind::Invalid) {
                    inner.subscribe_faults.push_back(ErrorKind::Invalid);
                }
            }
        }
        let until = rng.u64(next..=stored + 1);
        run.expect(next..until).await;
        next = until;
    }
    run.expect(next..=stored).await;
    fake.close(&["shard-2"]);
    match run.next().await {
        ReadEvent::Ended { children } => assert_eq!(children.len(), 1),
        event => panic!("{event:?}"),
    }
}

#[test]
fn each_record_comes_once_and_in_order() {
    for_each_seed(storm);
}
