//! C3: a record is settled before any checkpoint passes it; a handler's error or panic is a nack,
//! never a skip.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use millstream_core::{
    BatchFailure, ConsumerStats, DeadLetter, Delivery, ErrorKind, Failure as HandlerFailure,
    FailureKind, OnExhausted, Retry,
};
use tokio::sync::oneshot;

use super::cases;
use super::reader::{letters, pull, read};
use crate::fleet::{Failure, Fleet, HandlerFn, handler_fn, joined};
use crate::harness::{unique_stream, within_timeout};
use crate::history::{Event, Observer, Outcome, id_of};
use crate::{Fault, Harness};

cases! {
    c03_error_then_success,
    c03_panic_is_a_nack,
    c03_panic_before_the_first_await_is_a_nack,
    c03_dead_letter_has_the_record_and_the_reason,
    c03_dead_letter_is_settled_by_its_receipt [FAIL_SENDS],
    c03_skip_is_explicit,
    c03_stop_returns_the_error_and_the_record_is_redelivered,
    c03_dropped_delivery_is_a_nack,
    c03_nack_takes_the_failure_path,
    c03_batch_failure_settles_what_is_before_it,
    c03_batch_failure_without_an_index_is_bisected,
    c03_permanent_failure_is_not_retried,
    c03_unavailable_uses_up_no_attempts,
}

fn quickly(attempts: u32) -> Retry {
    Retry::fixed(Duration::from_millis(20)).attempts(attempts)
}

/// Fails each record of key `bad` in its first `times` attempts, with the result of `fail`.
fn fails_bad<F>(times: u32, fail: fn() -> F) -> HandlerFn
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    handler_fn(move |delivery: Delivery| async move {
        match delivery.key() {
            Some(key) if key == "bad" && delivery.attempt() <= times => fail().await,
            _ => Ok(()),
        }
    })
}

/// Returns a stream of one partition with alternating records of `good` and `bad`.
async fn good_and_bad(harness: Arc<dyn Harness>) -> Fleet {
    let fleet = Fleet::new(harness, 1).await;
    let mut test_producer = fleet.test_producer().await;
    // Stored before the first bad one: otherwise a broker may store the keys in any order.
    test_producer.send_one(Some("good")).await;
    test_producer.receipts().await;
    test_producer.send_one(Some("bad")).await;
    for _ in 1..5 {
        test_producer.send_one(Some("good")).await;
        test_producer.send_one(Some("bad")).await;
    }
    test_producer.close().await;
    fleet
}

async fn c03_error_then_success(harness: Arc<dyn Harness>) {
    let fleet = good_and_bad(harness).await;
    let work = fails_bad(2, || async { Err("no".into()) });
    let member = fleet
        .member("a")
        .handler(work)
        .with(|group| group.on_failure(quickly(3)));
    let member = member.start().await;
    let summary = fleet.check().await;
    assert_eq!((summary.handled, summary.failures), (10, 10), "{summary:?}");
    fleet.caught_up().await;
    let stats = member.handle().stats();
    assert_eq!(
        (stats.settled, stats.failures, stats.retried, stats.panicked),
        (10, 10, 10, 0),
        "each record fails once: {stats:?}"
    );
    member.close().await;
}

async fn panics(harness: Arc<dyn Harness>, work: HandlerFn) {
    let fleet = good_and_bad(harness).await;
    let member = fleet
        .member("a")
        .handler(work)
        .with(|group| group.on_failure(quickly(3)));
    let member = member.start().await;
    let summary = fleet.check().await;
    assert_eq!(summary.handled, 10, "{summary:?}");
    fleet.caught_up().await;
    let stats = member.handle().stats();
    assert_eq!(
        (stats.settled, stats.failures, stats.panicked),
        (10, 5, 5),
        "half of the records panic once: {stats:?}"
    );
    member.close().await;
}

/// Panics without a message on standard error, which would look like a failure of the case.
fn panic_quietly() -> Result<(), Failure> {
    std::panic::resume_unwind(Box::new("a handler that panics on purpose"))
}

async fn c03_panic_is_a_nack(harness: Arc<dyn Harness>) {
    let late = fails_bad(1, || async {
        tokio::task::yield_now().await;
        panic_quietly()
    });
    panics(harness, late).await;
}

async fn c03_panic_before_the_first_await_is_a_nack(harness: Arc<dyn Harness>) {
    let early = fails_bad(1, || async { panic_quietly() });
    panics(harness, early).await;
}

async fn c03_dead_letter_has_the_record_and_the_reason(harness: Arc<dyn Harness>) {
    let fleet = good_and_bad(harness).await;
    let dead = unique_stream(&*fleet.harness, 1).await;
    let work = fails_bad(u32::MAX, || async { Err("the tank is on fire".into()) });
    let member = fleet.member("a").handler(work).dead_letters_after(2);
    let policy = quickly(2).then(DeadLetter::stream(dead.as_str()));
    let member = member.with(|group| group.on_failure(policy)).start().await;
    let letters = letters(&*fleet.harness, &dead, 5).await;
    let source = read(&*fleet.harness, &fleet.stream, 10).await;
    for letter in &letters {
        let id = id_of(letter.payload());
        let of = source
            .iter()
            .find(|of| id_of(of.payload()) == id)
            .expect("it was sent");
        assert_eq!(
            (letter.key(), letter.payload()),
            (of.key(), of.payload()),
            "the letter has key and payload of its record"
        );
        let written = of.timestamp().duration_since(std::time::UNIX_EPOCH);
        let written = written.expect("it is after 1970").as_millis().to_string();
        assert!(
            letter.timestamp() >= of.timestamp(),
            "it is a record of its own time"
        );
        let kept: Vec<_> = letter.headers().iter().take(of.headers().len()).collect();
        assert_eq!(
            kept,
            of.headers().iter().collect::<Vec<_>>(),
            "the letter has the headers of its record"
        );
        let position = of.position().to_string();
        let added = [
            ("millstream-dead-attempts", "2"),
            ("millstream-dead-group", &fleet.group),
            ("millstream-dead-stream", &fleet.stream),
            ("millstream-dead-partition", of.partition().id()),
            ("millstream-dead-position", &position),
            ("millstream-dead-timestamp", &written),
        ];
        for (name, value) in added {
            let got = letter.headers().get(name).map(|value| &value[..]);
            assert_eq!(got, Some(value.as_bytes()), "{name}");
        }
        let reason = letter
            .headers()
            .get("millstream-dead-reason")
            .cloned()
            .unwrap_or_default();
        let reason = String::from_utf8_lossy(&reason).into_owned();
        assert!(reason.contains("the tank is on fire"), "{reason}");
        fleet.history.record(Event::DeadLettered {
            group: fleet.group.as_str().into(),
            id: id.expect("the payload has its id"),
        });
    }
    let ids: Vec<_> = letters
        .iter()
        .map(|letter| id_of(letter.payload()))
        .collect();
    assert!(ids.is_sorted(), "dead letters of one key keep their order");
    let summary = fleet.check().await;
    assert_eq!(
        (summary.handled, summary.dead_lettered),
        (5, 5),
        "{summary:?}"
    );
    fleet.caught_up().await;
    assert_eq!(
        member.handle().stats().dead_lettered,
        5,
        "each bad record is dead-lettered"
    );
    member.close().await;
}

async fn c03_dead_letter_is_settled_by_its_receipt(harness: Arc<dyn Harness>) {
    let fleet = good_and_bad(harness).await;
    let dead = unique_stream(&*fleet.harness, 1).await;
    let fault = Fault::FailSends {
        stream: dead.clone(),
        key: None,
        times: 6,
    };
    fleet.inject(fault).await;
    let work = fails_bad(u32::MAX, || async { Err("no".into()) });
    let policy = quickly(1).then(DeadLetter::stream(dead.as_str()));
    let interval = Duration::from_millis(1);
    let member = fleet.member("a").handler(work).dead_letters_after(1);
    let member = member.with(|group| group.on_failure(policy).checkpoint_interval(interval));
    let member = member.start().await;
    // Whenever the checkpoint has passed a bad record, its dead letter must be readable.
    let bad = read(&*fleet.harness, &fleet.stream, 10).await;
    let bad: Vec<_> = bad
        .iter()
        .filter(|d| d.key() == Some(&Bytes::from("bad")))
        .collect();
    let streams = fleet.client.streams();
    let all_settled = fleet.eventually("all dead letters are settled", || async {
        let checkpoint = fleet.checkpoints().await.first().and_then(|c| c.position);
        let passed = bad
            .iter()
            .filter(|d| Some(d.position()) <= checkpoint)
            .count();
        let described = streams
            .describe(&dead)
            .await
            .expect("the stream is described");
        let holds_records = described.partitions.iter().any(|p| p.latest.is_some());
        let there = match holds_records {
            true => letters(&*fleet.harness, &dead, passed).await.len(),
            false => 0,
        };
        assert!(
            there >= passed,
            "{passed} records were passed, {there} dead letters are there"
        );
        (passed == bad.len()).then_some(())
    });
    all_settled.await;
    member.close().await;
}

async fn c03_skip_is_explicit(harness: Arc<dyn Harness>) {
    let fleet = good_and_bad(harness).await;
    let work = fails_bad(u32::MAX, || async { Err("no".into()) });
    let member = fleet.member("a").handler(work).skips_after(2);
    let policy = quickly(2).then(OnExhausted::Skip);
    let member = member.with(|group| group.on_failure(policy)).start().await;
    let summary = fleet.check().await;
    assert_eq!(
        (summary.handled, summary.skipped, summary.failures),
        (5, 5, 10),
        "{summary:?}"
    );
    fleet.caught_up().await;
    assert_eq!(
        member.handle().stats().skipped,
        5,
        "each bad record is skipped"
    );
    member.close().await;
}

async fn c03_stop_returns_the_error_and_the_record_is_redelivered(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = good_and_bad(harness).await;
    let work = fails_bad(u32::MAX, || async { Err("the tank is on fire".into()) });
    let member = fleet
        .member("a")
        .handler(work)
        .with(|group| group.on_failure(quickly(2)));
    let error = member
        .start()
        .await
        .ended(timing)
        .await
        .expect_err("the policy is to stop");
    assert_eq!(error.kind(), ErrorKind::Handler, "{error:?}");
    assert_eq!(error.stream(), Some(fleet.stream.as_str()), "{error:?}");
    let message = format!("{error:?}");
    assert!(message.contains("the tank is on fire"), "{message}");
    // Nothing is skipped: the next member gets it at once.
    let member = fleet.member("b").start().await;
    // So do the good records behind it, which no checkpoint could pass, but not the first one.
    let summary = fleet.check().await;
    assert!(summary.duplicates <= 4, "{summary:?}");
    fleet.caught_up().await;
    member.close().await;
}

/// Pulls all records, fails each record of key `bad` once by `fail`, and acks it when it is delivered again.
async fn pull_and_fail(harness: Arc<dyn Harness>, fail: impl Fn(millstream_core::PendingDelivery)) {
    let timing = harness.timing();
    let fleet = good_and_bad(harness).await;
    let observer = Observer::new(&fleet.history, &fleet.group, "puller");
    let group = fleet.handle().await.on_failure(quickly(3));
    let mut consumer = group.join().await.expect("the puller joins");
    for _ in 0..15 {
        let delivery = pull(timing, &mut consumer).await;
        let open = observer.begin(&delivery);
        if delivery.key().is_some_and(|key| key == "bad") && delivery.attempt() == 1 {
            open.end(Outcome::Failed);
            fail(delivery);
        } else {
            open.end(Outcome::Acked);
            delivery.ack();
        }
    }
    let summary = fleet.check().await;
    assert_eq!((summary.handled, summary.failures), (10, 5), "{summary:?}");
    let stats = consumer.stats();
    assert_eq!(
        (stats.failures, stats.retried),
        (5, 5),
        "a dropped delivery is retried: {stats:?}"
    );
    consumer.close().await.expect("the puller closes");
    observer.left();
    fleet.caught_up().await;
}

async fn c03_dropped_delivery_is_a_nack(harness: Arc<dyn Harness>) {
    pull_and_fail(harness, drop).await;
}

async fn c03_nack_takes_the_failure_path(harness: Arc<dyn Harness>) {
    pull_and_fail(harness, |delivery| delivery.nack("no")).await;
}

async fn c03_batch_failure_settles_what_is_before_it(harness: Arc<dyn Harness>) {
    let fleet = good_and_bad(harness).await;
    stops_within_a_batch(&fleet).await;
    let observer = Observer::new(&fleet.history, &fleet.group, "batches");
    let handler = move |batch: Vec<Delivery>| {
        let observer = observer.clone();
        async move {
            for (index, delivery) in batch.iter().enumerate() {
                let open = observer.begin(delivery);
                let bad = delivery.key().is_some_and(|key| key == "bad");
                if bad && delivery.attempt() < 3 {
                    open.end(Outcome::Failed);
                    return Err(BatchFailure::at(index, "no"));
                }
                open.end(Outcome::Acked);
            }
            Ok(())
        }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let group = fleet.handle().await.on_failure(quickly(3));
    let task = tokio::spawn(group.run_batches(4, handler, async move {
        stopped.await.ok();
    }));
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    fleet.caught_up().await;
    stop.send(()).expect("the member runs");
    joined(task).await.expect("the member closes");
}

/// Runs a member that stops at the last record of its first batch of several. The records before it are
/// settled, so no later member handles them again.
async fn stops_within_a_batch(fleet: &Fleet) {
    let observer = Observer::new(&fleet.history, &fleet.group, "stops");
    let observed = observer.clone();
    let handler = move |batch: Vec<Delivery>| {
        let observer = observed.clone();
        async move {
            let last = batch.len() - 1;
            for (index, delivery) in batch.iter().enumerate() {
                let open = observer.begin(delivery);
                if index > 0 && index == last {
                    open.end(Outcome::Failed);
                    return Err(BatchFailure::at(index, "no"));
                }
                open.end(Outcome::Acked);
            }
            Ok(())
        }
    };
    let group = fleet.handle().await.on_failure(Retry::none());
    let run = group.run_batches(4, handler, std::future::pending());
    let ended = within_timeout(fleet.harness.timing(), "the member stops", run).await;
    let error = ended.expect_err("it stops with the error of its handler");
    assert_eq!(error.kind(), ErrorKind::Handler, "{error:?}");
    observer.left();
}

async fn c03_batch_failure_without_an_index_is_bisected(harness: Arc<dyn Harness>) {
    let fleet = good_and_bad(harness).await;
    let observer = Observer::new(&fleet.history, &fleet.group, "batches");
    let handler = move |batch: Vec<Delivery>| {
        let observer = observer.clone();
        async move {
            let is_bad = |delivery: &Delivery| delivery.key().is_some_and(|key| key == "bad");
            let outcome = match (batch.iter().any(is_bad), batch.len()) {
                (false, _) => Outcome::Acked,
                (true, 1) => Outcome::GaveUp,
                // The handler fails the batch before it looks at any record of it.
                (true, _) => return Err(BatchFailure::from(refused())),
            };
            for delivery in &batch {
                observer.begin(delivery).end(outcome);
            }
            match outcome {
                Outcome::Acked => Ok(()),
                _ => Err(BatchFailure::from(refused())),
            }
        }
    };
    let dead = unique_stream(&*fleet.harness, 1).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let policy = quickly(3).then(DeadLetter::stream(dead.as_str()));
    let group = fleet.handle().await.on_failure(policy);
    let run = group.run_batches(10, handler, async move {
        stopped.await.ok();
    });
    let control = run.handle();
    let task = tokio::spawn(run);
    for letter in letters(&*fleet.harness, &dead, 5).await {
        fleet.history.record(Event::DeadLettered {
            group: fleet.group.as_str().into(),
            id: id_of(letter.payload()).expect("the payload has the id"),
        });
        assert_eq!(
            letter.key(),
            Some(&Bytes::from("bad")),
            "only the bad records are dead-lettered"
        );
    }
    fleet.caught_up().await;
    fleet.check().await;
    assert_eq!(
        control.stats().dead_lettered,
        5,
        "the good ones are handled"
    );
    stop.send(()).expect("the member runs");
    joined(task).await.expect("the member closes");
}

/// Returns a failure that no attempt can repair.
fn refused() -> HandlerFailure {
    HandlerFailure::permanent("refused")
}

/// Runs a handler that fails each bad record once by `fail`, under a policy that skips at the end.
async fn run_and_fail(
    harness: Arc<dyn Harness>,
    fail: fn() -> HandlerFailure,
    policy: Retry,
) -> ConsumerStats {
    let fleet = good_and_bad(harness).await;
    let observer = Observer::new(&fleet.history, &fleet.group, "a");
    let skips = fail().kind() == FailureKind::Permanent;
    let failed = Arc::new(Mutex::new(BTreeSet::new()));
    let history = fleet.history.clone();
    let name: Arc<str> = fleet.group.as_str().into();
    let handler = move |delivery: Delivery| {
        let open = observer.begin(&delivery);
        let bad = delivery.key().is_some_and(|key| key == "bad");
        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match bad && failed.insert(delivery.position()) {
            false => {
                open.end(Outcome::Acked);
                Ok(())
            }
            true => {
                assert_eq!(delivery.attempt(), 1, "it is the first attempt");
                open.end(if skips {
                    Outcome::GaveUp
                } else {
                    Outcome::Failed
                });
                if let (true, Some(id)) = (skips, id_of(delivery.payload())) {
                    history.record(Event::Skipped {
                        group: name.clone(),
                        id,
                    });
                }
                Err(fail())
            }
        };
        async move { result }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let group = fleet
        .handle()
        .await
        .on_failure(policy.then(OnExhausted::Skip));
    let run = group.run(handler, async move {
        stopped.await.ok();
    });
    let control = run.handle();
    let task = tokio::spawn(run);
    fleet.caught_up().await;
    fleet.check().await;
    stop.send(()).expect("the member runs");
    joined(task).await.expect("the member closes");
    control.stats()
}

async fn c03_permanent_failure_is_not_retried(harness: Arc<dyn Harness>) {
    let policy = Retry::fixed(Duration::from_secs(3_600)).attempts(9);
    let stats = run_and_fail(harness, refused, policy).await;
    assert_eq!(
        (stats.failures, stats.retried, stats.skipped),
        (5, 0, 5),
        "{stats:?}"
    );
}

async fn c03_unavailable_uses_up_no_attempts(harness: Arc<dyn Harness>) {
    let fail = || HandlerFailure::unavailable("the database is down");
    let stats = run_and_fail(harness, fail, Retry::none()).await;
    assert_eq!(
        (stats.failures, stats.retried, stats.skipped),
        (5, 5, 0),
        "{stats:?}"
    );
}
