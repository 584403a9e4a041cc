//! Failures of batches: what they settle, what is tried again, and which record is given up.

use std::future::pending;
use std::time::Duration;

use millstream_core::{BatchFailure, DeadLetter, Delivery, ErrorKind, Retry};
use tokio::time::Instant;

use crate::batch_log::Batches;
use crate::desk::{checkpoint, group};
use crate::fake::{Call, Script, until};

#[tokio::test(start_paused = true)]
async fn a_batch_failure_at_an_index_settles_what_is_before_it_also_at_a_stop() {
    let script = Script::new();
    let run = group(&script).on_failure(Retry::none()).run_batches(
        3,
        |_| async { Err(BatchFailure::at(1, "no")) },
        pending(),
    );
    let run = tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "abc");
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    assert_eq!(script.steps(), [checkpoint("0", 0), Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_failure_at_an_index_is_checkpointed_during_the_retries() {
    let script = Script::new();
    let retry = Retry::fixed(Duration::from_secs(3_600));
    let run = group(&script).on_failure(retry).run_batches(
        3,
        |_| async { Err(BatchFailure::at(2, "no")) },
        pending(),
    );
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "abc");
    until(|| control.stats().failures == 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(script.steps(), [checkpoint("0", 1)]);
    assert_eq!(control.stats().settled, 2);
}

#[tokio::test(start_paused = true)]
async fn one_bad_record_of_a_batch_is_found_before_it_is_given_up() {
    let script = Script::new();
    let batches = Batches::default();
    let seen = batches.clone();
    let handler = move |batch: Vec<Delivery>| {
        seen.note(&batch);
        async move {
            match batch.iter().any(|delivery| *delivery.payload() == "5") {
                true => Err(BatchFailure::from("one of them is bad")),
                false => Ok(()),
            }
        }
    };
    let retry = Retry::fixed(Duration::from_secs(1))
        .attempts(2)
        .then(DeadLetter::stream("dead"));
    let run = group(&script)
        .on_failure(retry)
        .run_batches(8, handler, pending());
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "abcdefgh");
    script.until_called(checkpoint("0", 7)).await;
    let letters = script.letters().records();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].payload.as_deref(), Some(&b"5"[..]));
    assert_eq!(
        (control.stats().dead_lettered, control.stats().settled),
        (1, 8)
    );
    let sizes: Vec<_> = batches.seen().iter().map(Vec::len).collect();
    assert_eq!(sizes, [8, 8, 4, 4, 2, 1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_bad_records_is_dead_lettered_side_by_side() {
    let script = Script::new();
    *script.letters().latency.lock().unwrap() = Duration::from_secs(1);
    let run = group(&script)
        .on_failure(Retry::none().then(DeadLetter::stream("dead")))
        .run_batches(
            16,
            |_| async { Err(BatchFailure::from("all are bad")) },
            pending(),
        );
    tokio::spawn(run);
    script.assign("0", 1);
    let begun = Instant::now();
    script.records("0", 1, 0, "abcdefghijklmnop");
    until(|| script.letters().records().len() == 16).await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn letters_of_one_key_keep_their_order() {
    let script = Script::new();
    let run = group(&script)
        .on_failure(Retry::none().then(DeadLetter::stream("dead")))
        .run_batches(
            16,
            |_| async { Err(BatchFailure::from("all are bad")) },
            pending(),
        );
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "aaaaaaaa");
    until(|| script.letters().records().len() == 8).await;
    let letters = script.letters().records();
    assert!(letters.iter().map(|letter| &letter.payload).is_sorted());
}

#[tokio::test(start_paused = true)]
async fn attempts_are_counted_for_each_delivery_of_a_batch() {
    let script = Script::new();
    let batches = Batches::default();
    let seen = batches.clone();
    let handler = move |batch: Vec<Delivery>| {
        seen.note(&batch);
        let first_attempt = batch[0].attempt();
        let last_failed = batch.len() == 1 && first_attempt == 1;
        async move {
            match first_attempt {
                1..=3 if batch.len() == 2 => Err(BatchFailure::at(0, "no")),
                4 => Err(BatchFailure::at(1, "no")),
                _ if last_failed => Err(BatchFailure::at(0, "no")),
                _ => Ok(()),
            }
        }
    };
    let retry = Retry::fixed(Duration::from_secs(1));
    tokio::spawn(
        group(&script)
            .on_failure(retry)
            .run_batches(2, handler, pending()),
    );
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    script.until_called(checkpoint("0", 1)).await;
    assert_eq!(
        batches.seen(),
        [
            vec![(0, 1), (1, 1)],
            vec![(0, 2), (1, 1)],
            vec![(0, 3), (1, 1)],
            vec![(0, 4), (1, 1)],
            vec![(1, 2)],
        ]
    );
    assert_eq!(batches.len(), 5);
}
