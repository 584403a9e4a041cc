//! What a member delivers to its handler, and how it handles a failure.

use std::any::Any;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_core::driver::Event;
use millstream_core::{
    BatchFailure, DeadLetter, Delivery, Epoch, ErrorKind, OnDataLoss, OnExhausted, Position, Retry,
};

use crate::desk::{Desk, checkpoint, group};
use crate::fake::{Call, Script, partition, until};

#[tokio::test(start_paused = true)]
async fn a_pending_key_waits_and_others_go_on() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(0);
    desk.run(group(&script));
    script.assign("0", 1);
    script.records("0", 1, 0, "aab-a");
    desk.until_begun(&[0, 2, 3]).await;
    gate.notify_one();
    desk.until_begun(&[0, 2, 3, 1, 4]).await;
}

#[tokio::test(start_paused = true)]
async fn concurrency_bounds_the_handlers_at_once() {
    let (script, desk) = (Script::new(), Desk::default());
    let gates: Vec<_> = (0..4).map(|position| desk.gate(position)).collect();
    desk.run(group(&script).concurrency(2));
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "ab");
    script.records("1", 1, 2, "cd");
    desk.until_begun(&[0, 1]).await;
    gates[1].notify_one();
    desk.until_begun(&[0, 1, 2]).await;
    gates[0].notify_one();
    desk.until_begun(&[0, 1, 2, 3]).await;
}

#[tokio::test(start_paused = true)]
async fn the_checkpoint_stops_before_the_first_unsettled() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(2);
    desk.run(group(&script));
    script.assign("0", 1);
    script.records("0", 1, 0, "abcde");
    script.until_called(checkpoint("0", 1)).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(script.calls(), [checkpoint("0", 1)]);
    gate.notify_one();
    script.until_called(checkpoint("0", 4)).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_record_comes_again_before_the_next_of_its_key() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.fail(0, 2);
    desk.run(group(&script).on_failure(Retry::fixed(Duration::from_secs(1)).attempts(3)));
    script.assign("0", 1);
    script.records("0", 1, 0, "aba");
    until(|| desk.attempts().len() == 5).await;
    assert_eq!(desk.attempts(), [(0, 1), (1, 1), (0, 2), (0, 3), (2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_waits_for_its_retry_takes_no_room() {
    let (script, desk) = (Script::new(), Desk::default());
    (0..4).for_each(|position| desk.fail(position, 1));
    desk.run(
        group(&script)
            .concurrency(1)
            .on_failure(Retry::fixed(Duration::from_secs(60))),
    );
    script.assign("0", 1);
    script.records("0", 1, 0, "abcde");
    desk.until_begun(&[0, 1, 2, 3, 4]).await;
}

#[tokio::test(start_paused = true)]
async fn a_delivery_has_the_stream_id_of_its_assignment() {
    let script = Script::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let seen = seen.clone();
        move |delivery: Delivery| {
            let stream_id = delivery.stream_id().map(str::to_owned);
            seen.lock().unwrap().push((delivery.epoch().0, stream_id));
            async { Ok::<(), String>(()) }
        }
    };
    tokio::spawn(group(&script).run(handler, pending()));
    for (epoch, stream_id) in [(1, Some("one")), (2, Some("other")), (3, None)] {
        script.assign_of_stream("0", epoch, stream_id);
        script.records("0", epoch, 0, "a");
        until(|| seen.lock().unwrap().len() == epoch as usize).await;
    }
    let expected = [(1, Some("one")), (2, Some("other")), (3, None)];
    let expected = expected.map(|(epoch, id)| (epoch, id.map(str::to_owned)));
    assert_eq!(*seen.lock().unwrap(), expected);
}

/// Panics without a word on standard error.
fn panics_with(payload: impl Any + Send) {
    std::panic::resume_unwind(Box::new(payload));
}

#[tokio::test(start_paused = true)]
async fn the_message_of_a_panic_is_the_reason() {
    type Panics = fn();
    let literal: Panics = || panics_with("it broke");
    let formatted: Panics = || panics_with(format!("it broke {} times", 2));
    let speechless: Panics = || panics_with(7);
    for (panics, said) in [
        (literal, "handler panicked: it broke"),
        (formatted, "handler panicked: it broke 2 times"),
        (speechless, "handler panicked: no message"),
    ] {
        let script = Script::new();
        let group = group(&script).on_failure(Retry::none());
        let run = tokio::spawn(group.run(
            move |_: Delivery| async move {
                panics();
                Ok::<(), String>(())
            },
            pending(),
        ));
        script.assign("0", 1);
        script.records("0", 1, 0, "a");
        let error = run.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handler);
        let reason = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(reason, said);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure() {
    let script = Script::new();
    let tries = Arc::new(Mutex::new(0));
    let counted = tries.clone();
    let handler = move |_: Delivery| {
        let tries = counted.clone();
        async move {
            *tries.lock().unwrap() += 1;
            if *tries.lock().unwrap() == 1 {
                panics_with("the first try panics");
            }
            Ok::<(), String>(())
        }
    };
    let run = group(&script).run(handler, pending());
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    script.until_called(checkpoint("0", 0)).await;
    assert_eq!(*tries.lock().unwrap(), 2);
    assert_eq!((control.stats().failures, control.stats().panicked), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn stop_is_the_default_and_returns_the_reason() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.fail(1, 9);
    let (_, run) = desk.run(group(&script).on_failure(Retry::none()));
    script.assign("0", 1);
    script.records("0", 1, 0, "abc");
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    assert_eq!(error.partition(), Some(&partition("0")));
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(reason, "no 1");
    assert_eq!(script.steps(), [checkpoint("0", 0), Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn skip_settles_and_counts() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.fail(1, 9);
    let (control, _) = desk.run(group(&script).on_failure(Retry::none().then(OnExhausted::Skip)));
    script.assign("0", 1);
    script.records("0", 1, 0, "abc");
    script.until_called(checkpoint("0", 2)).await;
    assert_eq!((control.stats().skipped, control.stats().settled), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_partition_at_its_bound_pauses_itself_only() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(0);
    desk.run(group(&script).max_unsettled_per_partition(4));
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "abcd");
    script.until_called(Call::Pause("0".into())).await;
    gate.notify_one();
    script.until_called(Call::Resume("0".into())).await;
    assert!(!script.calls().contains(&Call::Pause("1".into())));
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_pauses_those_that_hold_more_than_their_share() {
    let (script, desk) = (Script::new(), Desk::default());
    let gates = [desk.gate(0), desk.gate(4)];
    let (control, _) = desk.run(group(&script).buffer_bytes(3));
    script.assign("0", 1);
    script.assign("1", 1);
    script.assign("2", 1);
    script.records("0", 1, 0, "aaaa");
    script.records("1", 1, 4, "bb");
    script.until_called(Call::Pause("0".into())).await;
    script.until_called(Call::Pause("1".into())).await;
    gates[1].notify_one();
    script.until_called(Call::Resume("1".into())).await;
    script.assign("3", 1);
    until(|| control.stats().assigned == 4).await;
    gates[0].notify_one();
    script.until_called(Call::Resume("0".into())).await;
    until(|| control.stats().buffered_bytes == 0).await;
    let of_idle = [2, 3].map(|id| Call::Pause(id.to_string()));
    assert!(!script.calls().iter().any(|call| of_idle.contains(call)));
}

#[tokio::test(start_paused = true)]
async fn a_loss_of_what_filled_the_buffers_ends_the_pause() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.gate(0);
    desk.gate(4);
    let (control, _) = desk.run(group(&script).buffer_bytes(11));
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "aaaa");
    script.records("1", 1, 4, "bb");
    script.until_called(Call::Pause("1".into())).await;
    script.mark_lost("0", 1);
    script.until_called(Call::Resume("1".into())).await;
    assert_eq!(control.stats().buffered_bytes, 4);
}

#[tokio::test(start_paused = true)]
async fn a_user_may_pause_and_resume() {
    let (script, desk) = (Script::new(), Desk::default());
    let (control, _) = desk.run(group(&script));
    script.assign("0", 1);
    until(|| control.partitions().len() == 1).await;
    control.pause(&partition("0"));
    script.until_called(Call::Pause("0".into())).await;
    control.resume_all();
    script.until_called(Call::Resume("0".into())).await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_by_retention_stops_or_is_jumped() {
    let gap = || Event::DataLoss {
        partition: partition("0"),
        epoch: Epoch(1),
        after: None,
        earliest: Position::from(7),
    };
    let (script, desk) = (Script::new(), Desk::default());
    let (_, run) = desk.run(group(&script));
    script.assign("0", 1);
    script.emit(gap());
    assert_eq!(run.await.unwrap().unwrap_err().kind(), ErrorKind::DataLoss);

    let (script, desk) = (Script::new(), Desk::default());
    let (control, _) = desk.run(group(&script).on_data_loss(OnDataLoss::Skip));
    script.assign("0", 1);
    script.emit(gap());
    script.records("0", 1, 7, "a");
    desk.until_begun(&[7]).await;
    assert_eq!(control.stats().data_losses, 1);
}

#[tokio::test(start_paused = true)]
async fn records_that_the_driver_leaves_out_are_counted_without_an_event() {
    let (script, desk) = (Script::new(), Desk::default());
    let (control, _) = desk.run(group(&script));
    script.assign("0", 1);
    script.records("0", 1, 7, "a");
    desk.until_begun(&[7]).await;
    assert_eq!(control.stats().filtered, 0);
    script.joins()[0].filtered.add(3);
    assert_eq!(control.stats().filtered, 3);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_at_an_index_goes_on_from_there() {
    let script = Script::new();
    let batches = Arc::new(Mutex::new(Vec::new()));
    let seen = batches.clone();
    let handler = move |batch: Vec<Delivery>| {
        let positions: Vec<_> = batch
            .iter()
            .map(|delivery| delivery.position().offset().unwrap())
            .collect();
        let attempt = batch[0].attempt();
        seen.lock().unwrap().push(positions.clone());
        async move {
            match (
                positions.iter().position(|position| *position == 1),
                attempt,
            ) {
                (Some(index), 1) => Err(BatchFailure::at(index, "not this one")),
                _ => Ok(()),
            }
        }
    };
    tokio::spawn(group(&script).run_batches(3, handler, pending()));
    script.assign("0", 1);
    script.records("0", 1, 0, "aaaaa");
    script.until_called(checkpoint("0", 4)).await;
    assert_eq!(
        *batches.lock().unwrap(),
        [vec![0, 1, 2], vec![1, 2], vec![3, 4]]
    );
}

#[tokio::test]
async fn bad_options_are_refused_at_the_start() {
    let script = Script::new();
    let long = "x".repeat(256);
    let day = Duration::from_secs(24 * 60 * 60);
    let cases = [
        (script.client.group("").stream("s"), "group name"),
        (script.client.group(long).stream("s"), "group name"),
        (script.client.group("g"), "no stream"),
        (group(&script).stream("s"), "named twice"),
        (script.client.group("g").stream("a/b"), "stream name"),
        (group(&script).concurrency(0), "concurrency is 0"),
        (
            group(&script).max_unsettled_per_partition(0),
            "max_unsettled_per_partition is 0",
        ),
        (group(&script).max_poll_records(0), "max_poll_records is 0"),
        (group(&script).buffer_bytes(0), "buffer_bytes is 0"),
        (
            group(&script).checkpoint_records(0),
            "checkpoint_records is 0",
        ),
        (
            group(&script).checkpoint_interval(Duration::ZERO),
            "checkpoint_interval",
        ),
        (
            group(&script).checkpoint_interval(2 * day),
            "checkpoint_interval",
        ),
        (group(&script).drain_timeout(2 * day), "drain_timeout"),
        (
            group(&script).handler_timeout(Duration::ZERO),
            "handler_timeout",
        ),
        (
            group(&script).on_failure(Retry::none().then(DeadLetter::stream("s"))),
            "dead letters to s",
        ),
        (
            group(&script).on_failure(Retry::exponential().attempts(0)),
            "attempts is 0",
        ),
        (
            group(&script).on_failure(Retry::exponential().delays(day, Duration::ZERO)),
            "retry delays",
        ),
        (
            group(&script).on_failure(Retry::exponential().delays(day, 2 * day)),
            "retry delay is 172800s",
        ),
        (
            group(&script).on_failure(Retry::fixed(Duration::MAX)),
            "retry delay is",
        ),
    ];
    for (group, what) in cases {
        let error = group.join().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(
            error.to_string().contains(what),
            "{error} does not say {what}"
        );
    }
}
