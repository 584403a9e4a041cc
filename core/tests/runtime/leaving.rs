//! How partitions leave a member, and how a member leaves its group.

use std::future::pending;
use std::time::Duration;

use millstream_core::driver::Event;
use millstream_core::{DeadLetter, Delivery, Epoch, ErrorKind, Record, Result, Retry, StreamSpec};

use crate::desk::{Desk, checkpoint, group};
use crate::fake::{Call, Script, partition, until};

#[tokio::test(start_paused = true)]
async fn a_revoked_partition_drains_checkpoints_and_is_released() {
    let (script, desk) = (Script::new(), Desk::default());
    let gates = [desk.gate(0), desk.gate(1)];
    desk.run(group(&script).concurrency(2));
    script.assign("0", 1);
    script.records("0", 1, 0, "abcd");
    desk.until_begun(&[0, 1]).await;
    script.revoke("0", 1, Duration::from_secs(10));
    tokio::time::sleep(Duration::from_secs(1)).await;
    gates[1].notify_one();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(script.calls(), []);
    gates[0].notify_one();
    script.until_called(Call::Release("0".into())).await;
    assert_eq!(
        script.calls(),
        [checkpoint("0", 1), Call::Release("0".into())]
    );
    desk.until_begun(&[0, 1]).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_takes_too_long_still_stores_what_is_settled() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.gate(1);
    let hour = Duration::from_secs(3_600);
    desk.run(group(&script).checkpoint_interval(hour));
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    desk.until_begun(&[0, 1]).await;
    let asked = tokio::time::Instant::now();
    script.revoke("0", 1, Duration::from_secs(3));
    script.until_called(Call::Release("0".into())).await;
    assert!(asked.elapsed() < Duration::from_secs(3), "or it is fenced");
    assert_eq!(
        script.calls(),
        [checkpoint("0", 0), Call::Release("0".into())]
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_takes_too_long_drops_its_handlers() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.gate(1);
    desk.run(group(&script));
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    desk.until_begun(&[0, 1]).await;
    script.revoke("0", 1, Duration::from_secs(3));
    script.until_called(Call::Release("0".into())).await;
    assert_eq!(
        script.calls(),
        [checkpoint("0", 0), Call::Release("0".into())]
    );
    assert_eq!(desk.dropped(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_partition_stops_at_once_and_stores_nothing() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.gate(1);
    let (control, _) = desk.run(group(&script));
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    desk.until_begun(&[0, 1]).await;
    script.mark_lost("0", 1);
    until(|| desk.dropped() == [1]).await;
    script.records("0", 1, 2, "cd");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(script.calls(), []);
    assert_eq!(desk.begun(), [0, 1]);
    assert_eq!(
        (control.stats().lost, control.stats().buffered_bytes),
        (1, 0)
    );
    script.assign("0", 2);
    script.records("0", 2, 0, "ab");
    until(|| desk.begun() == [0, 1, 0, 1]).await;
}

#[tokio::test(start_paused = true)]
async fn a_fenced_checkpoint_is_a_loss() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.gate(1);
    let (control, _) = desk.run(group(&script));
    script.refuse_updates(&[ErrorKind::Fenced]);
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    until(|| desk.dropped() == [1]).await;
    assert_eq!(control.stats().lost, 1);
    assert_eq!(control.partitions().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_was_not_stored_is_tried_again_before_the_leave() {
    let (script, desk) = (Script::new(), Desk::default());
    let (control, run) = desk.run(group(&script).checkpoint_interval(Duration::from_secs(600)));
    script.refuse_updates(&[ErrorKind::Unavailable; 3]);
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    desk.until_begun(&[0, 1]).await;
    control.shutdown();
    run.await.unwrap().unwrap();
    assert_eq!(script.steps(), [checkpoint("0", 1), Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_cannot_store_its_progress_fails() {
    let (script, desk) = (Script::new(), Desk::default());
    let (control, run) = desk.run(group(&script).checkpoint_interval(Duration::from_secs(600)));
    script.refuse_updates(&[ErrorKind::Unavailable; 10_000]);
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    desk.until_begun(&[0, 1]).await;
    control.shutdown();
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(error.partition(), Some(&partition("0")));
    let cause = std::error::Error::source(&error).expect("the refusal");
    assert!(cause.to_string().contains("as scripted"), "{cause}");
    assert_eq!(script.steps(), [Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn an_ended_partition_is_completed_when_all_is_settled() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(0);
    desk.run(group(&script));
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    script.emit(Event::Ended {
        partition: partition("0"),
        epoch: Epoch(1),
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(script.calls(), []);
    gate.notify_one();
    script.until_called(Call::Complete("0".into())).await;
    assert_eq!(
        script.calls(),
        [checkpoint("0", 1), Call::Complete("0".into())]
    );
}

#[tokio::test(start_paused = true)]
async fn a_completion_that_was_not_stored_is_tried_again_after_a_pause() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_completions(5);
    let (control, run) = desk.run(group(&script));
    script.assign("0", 1);
    let begun = tokio::time::Instant::now();
    script.emit(Event::Ended {
        partition: partition("0"),
        epoch: Epoch(1),
    });
    until(|| control.stats().released == 1).await;
    assert_eq!(script.calls(), vec![Call::Complete("0".into()); 6]);
    let took = begun.elapsed().as_secs_f32();
    assert!((0.9..2.0).contains(&took), "{took} s");
    control.shutdown();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_closes_does_not_complete_what_it_let_pass_by() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(0);
    let (control, run) = desk.run(group(&script));
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "a");
    desk.until_begun(&[0]).await;
    control.shutdown();
    tokio::time::sleep(Duration::from_secs(1)).await;
    script.records("1", 1, 0, "b");
    script.emit(Event::Ended {
        partition: partition("1"),
        epoch: Epoch(1),
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    gate.notify_one();
    run.await.unwrap().unwrap();
    assert_eq!(script.steps(), [checkpoint("0", 0), Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_comes_twice_is_one() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(0);
    let (control, run) = desk.run(group(&script));
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    desk.until_begun(&[0]).await;
    control.shutdown();
    control.shutdown();
    tokio::time::sleep(Duration::from_secs(1)).await;
    control.shutdown();
    gate.notify_one();
    run.await.unwrap().unwrap();
    assert_eq!(script.steps(), [checkpoint("0", 0), Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn a_close_with_a_stuck_handler_ends_after_the_drain_timeout() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.gate(1);
    let (control, run) = desk.run(group(&script).drain_timeout(Duration::from_secs(3)));
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    desk.until_begun(&[0, 1]).await;
    let asked = tokio::time::Instant::now();
    control.shutdown();
    run.await.unwrap().unwrap();
    assert!(
        asked.elapsed() < Duration::from_millis(3_100),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(script.steps(), [checkpoint("0", 0), Call::Leave]);
    assert_eq!(desk.dropped(), [1]);
}

/// A handler whose future panics when it is dropped before it is done.
struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        // Without a word on standard error.
        std::panic::resume_unwind(Box::new("dropped before it was done"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_destructor_that_panics_takes_no_member_down() {
    let script = Script::new();
    let stuck = |_| async {
        let _brittle = Brittle;
        pending::<Result<()>>().await
    };
    let group = group(&script).drain_timeout(Duration::from_secs(3));
    let run = group.run(stuck, pending());
    let (control, run) = (run.handle(), tokio::spawn(run));
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    until(|| control.stats().in_flight == 1).await;
    script.mark_lost("0", 1);
    until(|| control.stats().in_flight == 0).await;
    script.assign("1", 1);
    script.records("1", 1, 0, "a");
    until(|| control.stats().in_flight == 1).await;
    script.break_with(ErrorKind::NotFound);
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(script.steps(), [Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn a_broken_membership_ends_the_run_with_its_error() {
    let (script, desk) = (Script::new(), Desk::default());
    let (_, run) = desk.run(group(&script));
    script.break_with(ErrorKind::NotFound);
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.group()),
        (ErrorKind::NotFound, Some("g"))
    );
}

#[tokio::test(start_paused = true)]
async fn dead_letters_that_cannot_be_sent_hold_up_no_close() {
    let memory = millstream_memory::Memory::new(Default::default()).unwrap();
    let client = memory.client();
    for stream in ["s", "dead"] {
        client
            .streams()
            .create(StreamSpec::new(stream))
            .await
            .unwrap();
    }
    let producer = client.producer("s").open().await.unwrap();
    let sent = producer.send(Record::new("poison").key("a")).await.unwrap();
    sent.await.unwrap();
    let hour = Duration::from_secs(3_600);
    memory.faults().fail_for(hour, ErrorKind::Unavailable);
    let run = client
        .group("g")
        .stream("s")
        .drain_timeout(Duration::from_secs(3))
        .on_failure(Retry::none().then(DeadLetter::stream("dead")))
        .run(|_| async { Err("no") }, pending());
    let (control, run) = (run.handle(), tokio::spawn(run));
    until(|| control.stats().failures == 1).await;
    let asked = tokio::time::Instant::now();
    control.shutdown();
    run.await.unwrap().unwrap();
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let progress = client.group("g").checkpoints().await.unwrap();
    assert_eq!(progress[0].position, None, "it comes again");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_a_join_that_takes_long() {
    let (script, desk) = (Script::new(), Desk::default());
    let _held = script.hold_membership().await;
    let asked = tokio::time::Instant::now();
    let handler = |_: Delivery| async { Ok::<(), String>(()) };
    let second = Duration::from_secs(1);
    let run = group(&script).run(handler, tokio::time::sleep(second));
    // The join never ends by itself.
    let ended = tokio::time::timeout(10 * second, run).await;
    ended.expect("it hears the shutdown").unwrap();
    let (control, run) = desk.run(group(&script));
    control.pause_all();
    tokio::time::sleep(second).await;
    control.shutdown();
    let ended = tokio::time::timeout(10 * second, run).await;
    ended.expect("it hears the handle").unwrap().unwrap();
    assert!(asked.elapsed() < 3 * second);
}

#[tokio::test(start_paused = true)]
async fn one_deadline_bounds_all_of_a_close() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.gate(1);
    script.refuse_updates(&[ErrorKind::Unavailable; 1_000]);
    let (control, run) = desk.run(group(&script));
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    desk.until_begun(&[0, 1]).await;
    let _held = script.hold_membership().await;
    let asked = tokio::time::Instant::now();
    control.shutdown();
    assert_eq!(run.await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    let took = asked.elapsed();
    assert!(took <= Duration::from_secs(16), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_without_a_result_is_stored_again() {
    let (script, desk) = (Script::new(), Desk::default());
    script.forget_result();
    desk.run(group(&script));
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    desk.until_begun(&[0]).await;
    script.revoke("0", 1, Duration::from_secs(10));
    script.until_called(Call::Release("0".into())).await;
    assert_eq!(
        script.steps(),
        [checkpoint("0", 0), Call::Release("0".into())]
    );
}

#[tokio::test(start_paused = true)]
async fn many_partitions_leave_at_once() {
    const PARTITIONS: usize = 10_000;
    let (script, desk) = (Script::new(), Desk::default());
    let (control, _run) = desk.run(group(&script).buffer_bytes(1 << 30));
    let ids: Vec<String> = (0..PARTITIONS).map(|id| id.to_string()).collect();
    for id in &ids {
        script.assign(id, 1);
        script.records(id, 1, 0, "a");
    }
    until(|| control.stats().settled == PARTITIONS as u64).await;
    let partitions = ids.iter().map(|id| (partition(id), Epoch(1))).collect();
    script.emit(Event::Revoking {
        partitions,
        within: Duration::from_secs(10),
    });
    until(|| control.stats().released == PARTITIONS as u64).await;
    let stored = |call: &&Call| matches!(call, Call::Checkpoint(_, 0));
    assert_eq!(script.calls().iter().filter(stored).count(), PARTITIONS);
    assert!(control.partitions().is_empty());
}
