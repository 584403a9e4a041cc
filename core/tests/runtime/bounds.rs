//! What a member does at its bounds: one thing that is stuck stops nothing else.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_core::driver::Event;
use millstream_core::{BatchFailure, Delivery, Epoch, ErrorKind, Lag};
use tokio::sync::Notify;

use crate::desk::{Desk, checkpoint, group};
use crate::fake::{Call, Script, partition, until};

#[tokio::test(start_paused = true)]
async fn the_largest_batch_is_taken_again_and_again() {
    const LARGEST: usize = 100_000;
    let script = Script::new();
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let gate = Arc::new(Notify::new());
    let (noted, opened) = (sizes.clone(), gate.clone());
    let handler = move |batch: Vec<Delivery>| {
        noted.lock().unwrap().push(batch.len());
        let (is_first, opened) = (batch[0].position() == 0.into(), opened.clone());
        async move {
            if is_first {
                opened.notified().await;
            }
            Ok::<(), BatchFailure>(())
        }
    };
    tokio::spawn(group(&script).run_batches(LARGEST, handler, pending()));
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    until(|| !sizes.lock().unwrap().is_empty()).await;
    script.records("0", 1, 1, &"b".repeat(2 * LARGEST + 1));
    gate.notify_one();
    script
        .until_called(checkpoint("0", 2 * LARGEST as u64 + 1))
        .await;
    assert_eq!(*sizes.lock().unwrap(), [1, LARGEST, LARGEST, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_without_a_bound_is_refused() {
    for records in [0, 100_001, usize::MAX] {
        let script = Script::new();
        let handler = |_: Vec<Delivery>| async { Ok::<(), BatchFailure>(()) };
        let run = group(&script).run_batches(records, handler, async {});
        let error = run.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{records}");
        assert!(error.to_string().contains("batch"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_key_pauses_no_other_partition() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.gate(0);
    // Each of the two partitions has a share of three bytes: one record of the second one.
    desk.run(group(&script).buffer_bytes(12));
    script.assign("0", 1);
    script.assign("1", 1);
    // Ten bytes of the key that is stuck.
    script.records("0", 1, 0, "aaaaa");
    script.until_called(Call::Pause("0".into())).await;
    for position in 7..100 {
        script.records("1", 1, position, "b");
        until(|| desk.begun().last() == Some(&position)).await;
    }
    script.until_called(checkpoint("1", 99)).await;
    assert!(!script.calls().contains(&Call::Resume("0".into())));
    // A driver delivers nothing of a partition that is paused; this one would.
    assert!(!script.calls().contains(&Call::Pause("1".into())));
}

#[tokio::test(start_paused = true)]
async fn settled_records_behind_a_hole_give_their_bytes_back() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(0);
    let (control, _run) = desk.run(group(&script).buffer_bytes(8));
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "abcda");
    desk.until_begun(&[0, 1, 2, 3]).await;
    script.until_called(Call::Resume("0".into())).await;
    until(|| control.stats().buffered_bytes == 4).await;
    script.records("0", 1, 5, "bcde");
    until(|| control.stats().settled == 7).await;
    gate.notify_one();
    script.until_called(checkpoint("0", 8)).await;
    assert_eq!(control.stats().buffered_bytes, 0);
}

/// Only what is next to an unsettled record is known of the records between two of them.
#[tokio::test(start_paused = true)]
async fn the_watermark_has_its_position_wherever_it_stops() {
    let (script, desk) = (Script::new(), Desk::default());
    let gates = [0, 3, 4, 9].map(|position| desk.gate(position));
    let (control, _run) = desk.run(group(&script).buffer_bytes(1));
    script.assign("0", 1);
    script.records("0", 1, 0, "abcdefg");
    script.records("0", 1, 7, "hijk");
    until(|| control.stats().settled == 7).await;
    for (gate, position) in gates.iter().zip([2, 3, 8, 10]) {
        gate.notify_one();
        script.until_called(checkpoint("0", position)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_do_not_exist_change_nothing() {
    let (script, desk) = (Script::new(), Desk::default());
    let hour = Duration::from_secs(3_600);
    desk.run(group(&script).checkpoint_interval(hour));
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    desk.until_begun(&[0, 1]).await;
    script.records("0", 1, 2, "");
    desk.gate(2);
    script.records("0", 1, 2, "cd");
    desk.until_begun(&[0, 1, 2, 3]).await;
    script.revoke("0", 1, Duration::from_secs(3));
    script.until_called(Call::Release("0".into())).await;
    assert_eq!(
        script.calls(),
        [checkpoint("0", 1), Call::Release("0".into())]
    );
}

#[tokio::test(start_paused = true)]
async fn an_end_behind_a_stuck_partition_comes_through() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.gate(0);
    // Each has a share of two bytes: the one record of the second partition.
    desk.run(group(&script).buffer_bytes(8));
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "aaaa");
    script.until_called(Call::Pause("0".into())).await;
    script.records("1", 1, 7, "b");
    script.emit(Event::Ended {
        partition: partition("1"),
        epoch: Epoch(1),
    });
    script.until_called(Call::Complete("1".into())).await;
    // A driver reports no end of a partition that is paused; this one would.
    assert!(!script.calls().contains(&Call::Pause("1".into())));
}

#[tokio::test(start_paused = true)]
async fn a_closing_member_takes_no_more_records() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(0);
    let (control, run) = desk.run(group(&script));
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "a");
    desk.until_begun(&[0]).await;
    control.shutdown();
    script.until_called(Call::Pause("0".into())).await;
    script.until_called(Call::Pause("1".into())).await;
    script.assign("2", 1);
    script.until_called(Call::Pause("2".into())).await;
    gate.notify_one();
    run.await.unwrap().unwrap();
    let resumed = |call: &Call| matches!(call, Call::Resume(_));
    assert!(!script.calls().iter().any(resumed));
}

#[tokio::test(start_paused = true)]
async fn one_partition_may_be_resumed_while_all_are_paused() {
    let (script, desk) = (Script::new(), Desk::default());
    let (control, _run) = desk.run(group(&script));
    control.pause_all();
    script.assign("0", 1);
    script.assign("1", 1);
    script.until_called(Call::Pause("1".into())).await;
    control.resume(&partition("0"));
    script.until_called(Call::Resume("0".into())).await;
    assert!(!script.calls().contains(&Call::Resume("1".into())));
    script.mark_lost("0", 1);
    script.assign("0", 2);
    until(|| control.stats().assigned == 3).await;
    let paused = |call: &&Call| **call == Call::Pause("0".into());
    assert_eq!(script.calls().iter().filter(paused).count(), 1);
    control.pause_all();
    until(|| script.calls().iter().filter(paused).count() == 2).await;
}

/// Between two polls other tasks of the thread have their turn.
#[tokio::test]
async fn one_poll_is_bounded_in_time() {
    let script = Script::new();
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = begun.clone();
    let handler = move |_: Delivery| {
        std::thread::sleep(Duration::from_millis(1));
        counted.fetch_add(1, Relaxed);
        async { Ok::<(), String>(()) }
    };
    let mut run = pin!(group(&script).run(handler, pending()));
    script.assign("0", 1);
    script.records("0", 1, 0, &"-".repeat(200));
    let largest = Mutex::new(0);
    poll_fn(|cx| {
        let before = begun.load(Relaxed);
        assert!(run.as_mut().poll(cx).is_pending());
        let in_this_poll = begun.load(Relaxed) - before;
        let mut largest = largest.lock().unwrap();
        *largest = in_this_poll.max(*largest);
        match begun.load(Relaxed) {
            200 => std::task::Poll::Ready(()),
            _ => std::task::Poll::Pending,
        }
    })
    .await;
    assert!(*largest.lock().unwrap() <= 4, "{largest:?} in one poll");
}

#[tokio::test(start_paused = true)]
async fn stats_count_what_a_stuck_handler_holds_up() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(0);
    let (control, _run) = desk.run(group(&script).max_unsettled_per_partition(4));
    script.assign("0", 1);
    script.records("0", 1, 0, "aaaaa");
    let stats = || control.partitions()[&partition("0")].clone();
    until(|| control.partitions().len() == 1 && stats().unsettled == 5).await;
    assert!(stats().paused);
    assert_eq!(
        (stats().settled, stats().behind()),
        (None, None),
        "no lag was reported"
    );
    script.emit(Event::Lag {
        partition: partition("0"),
        epoch: Epoch(1),
        lag: Lag {
            records: Some(1_000),
            time: None,
        },
    });
    until(|| stats().behind() == Some(1_005)).await;
    gate.notify_one();
    until(|| stats().unsettled == 0).await;
    assert!(!stats().paused);
    assert_eq!(stats().settled, Some(4.into()));
}

/// One fetch must not pass the bound by more than the bound.
#[tokio::test(start_paused = true)]
async fn a_fetch_takes_no_more_than_may_be_unsettled() {
    for (unsettled, fetch, expected) in [(1, 1_000, 1), (50, 7, 7), (10_000, 1_000, 1_000)] {
        let (script, desk) = (Script::new(), Desk::default());
        let bounded = group(&script)
            .max_unsettled_per_partition(unsettled)
            .max_poll_records(fetch);
        desk.run(bounded);
        until(|| !script.joins().is_empty()).await;
        assert_eq!(script.joins()[0].batch_records, expected);
    }
}
