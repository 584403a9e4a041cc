//! What becomes of a failure: how often it is tried, what it holds up, and how it ends.

use std::fmt;
use std::future::pending;
use std::time::Duration;

use millstream_core::{
    BatchFailure, DeadLetter, Delivery, Error, ErrorKind, Failure, OnExhausted, Retry,
};
use tokio::time::Instant;

use crate::batch_log::Batches;
use crate::desk::{checkpoint, group};
use crate::fake::{Script, until};

#[tokio::test(start_paused = true)]
async fn the_default_policy_survives_five_minutes_without_a_database() {
    let script = Script::new();
    let up = Instant::now() + Duration::from_secs(300);
    let run = tokio::spawn(group(&script).run(
        move |_| async move {
            match Instant::now() < up {
                true => Err("connection refused"),
                false => Ok(()),
            }
        },
        pending(),
    ));
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    until(|| run.is_finished() || script.steps().contains(&checkpoint("0", 0))).await;
    assert!(!run.is_finished(), "the member has stopped");
}

#[derive(Debug)]
struct TankOnFire(u32);

impl fmt::Display for TankOnFire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tank {} is on fire", self.0)
    }
}

impl std::error::Error for TankOnFire {}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_handler_is_the_source_of_the_end() {
    let script = Script::new();
    let run = group(&script)
        .on_failure(Retry::none())
        .run(|_| async { Err(TankOnFire(7)) }, pending());
    let run = tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    let error = run.await.unwrap().unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(
        source.downcast_ref::<TankOnFire>().map(|tank| tank.0),
        Some(7)
    );
    let printed = format!("{error:?}");
    assert_eq!(printed.matches("on fire").count(), 1, "{printed}");
}

/// Whether this is one of the 5 % that cannot be parsed.
fn is_malformed(delivery: &Delivery) -> bool {
    delivery.position().offset().unwrap() % 20 == 7
}

#[tokio::test(start_paused = true)]
async fn malformed_records_cost_no_time() {
    let keys: String = "abcdefghij".repeat(100);
    let policy = Retry::exponential().then(DeadLetter::stream("dead"));
    let each = |delivery: Delivery| async move {
        match is_malformed(&delivery) {
            true => Err(Failure::permanent("not JSON")),
            false => Ok(()),
        }
    };
    let at_index = |batch: Vec<Delivery>| async move {
        match batch.iter().position(is_malformed) {
            Some(index) => Err(BatchFailure::at(index, Failure::permanent("not JSON"))),
            None => Ok(()),
        }
    };
    let whole = |batch: Vec<Delivery>| async move {
        match batch.iter().any(is_malformed) {
            true => Err(BatchFailure::from(Failure::permanent("not JSON"))),
            false => Ok(()),
        }
    };
    for way in 0..3 {
        let script = Script::new();
        let group = group(&script).on_failure(policy.clone());
        let run = match way {
            0 => group.run(each, pending()),
            1 => group.run_batches(500, at_index, pending()),
            _ => group.run_batches(500, whole, pending()),
        };
        let control = run.handle();
        tokio::spawn(run);
        script.assign("0", 1);
        let begun = Instant::now();
        script.records("0", 1, 0, &keys);
        until(|| control.stats().settled == 1_000).await;
        assert!(
            begun.elapsed() < Duration::from_millis(500),
            "{way}: {:?}",
            begun.elapsed()
        );
        assert_eq!(control.stats().dead_lettered, 50);
        assert_eq!(script.letters().records().len(), 50);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_uses_up_no_attempts_and_holds_up_its_key_only() {
    let script = Script::new();
    let up = Instant::now() + Duration::from_secs(3_600);
    let attempts = Batches::default();
    let seen = attempts.clone();
    let run = group(&script).on_failure(Retry::none()).run(
        move |delivery: Delivery| {
            seen.note(std::slice::from_ref(&delivery));
            async move {
                match delivery.key().is_some_and(|key| key == "a") && Instant::now() < up {
                    true => Err(Failure::unavailable("connection refused")),
                    false => Ok(()),
                }
            }
        },
        pending(),
    );
    let run = tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "aba");
    until(|| attempts.seen().contains(&vec![(1, 1)])).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(360)).await;
    }
    script.until_called(checkpoint("0", 2)).await;
    assert!(!run.is_finished());
    let seen = attempts.seen();
    assert!(seen.iter().all(|places| places[0].1 == 1), "{seen:?}");
    // At the most one attempt in 30 s, after some quick ones.
    assert!((60..140).contains(&seen.len()), "{}", seen.len());
}

#[tokio::test(start_paused = true)]
async fn a_failure_says_when_to_try_again() {
    let script = Script::new();
    let run = group(&script).run(
        |delivery: Delivery| async move {
            match delivery.attempt() {
                1 => Err(Failure::retry_after("busy", Duration::from_secs(77))),
                _ => Ok(()),
            }
        },
        pending(),
    );
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    until(|| control.stats().failures == 1).await;
    let failed = Instant::now();
    until(|| control.stats().settled == 1).await;
    let took = failed.elapsed().as_secs();
    assert!((76..79).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn a_predicate_makes_failures_permanent() {
    let script = Script::new();
    let retry = Retry::fixed(Duration::from_secs(3_600))
        .retry_if(|error| !error.is::<TankOnFire>())
        .then(OnExhausted::Skip);
    let run = group(&script)
        .on_failure(retry)
        .run(|_| async { Err(TankOnFire(1)) }, pending());
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    until(|| control.stats().skipped == 1).await;
    assert_eq!(control.stats().failures, 1);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_too_long_has_failed_and_its_helpers_learn_of_it() {
    let script = Script::new();
    let (attempts, mut lost) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |delivery: Delivery| {
        let attempts = attempts.clone();
        async move {
            if delivery.attempt() == 1 {
                let helped = delivery.clone();
                tokio::spawn(async move {
                    helped.lost().await;
                    attempts.send((helped.attempt(), helped.is_lost())).unwrap();
                });
                pending::<()>().await;
            }
            assert!(!delivery.is_lost(), "the second attempt is wanted");
            Ok::<(), String>(())
        }
    };
    let run = group(&script)
        .handler_timeout(Duration::from_secs(30))
        .on_failure(Retry::fixed(Duration::from_secs(1)))
        .run(handler, pending());
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    assert_eq!(lost.recv().await, Some((1, true)));
    script.until_called(checkpoint("0", 0)).await;
    assert_eq!((control.stats().failures, control.stats().lost), (1, 0));

    let script = Script::new();
    let run = group(&script)
        .handler_timeout(Duration::from_secs(30))
        .on_failure(Retry::none())
        .run(|_| pending::<Result<(), String>>(), pending());
    let run = tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    let error = run.await.unwrap().unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    let timeout = source.downcast_ref::<Error>().unwrap();
    assert_eq!(timeout.kind(), ErrorKind::Timeout);
}
