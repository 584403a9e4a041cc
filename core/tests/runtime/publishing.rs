//! Exactly-once pipelines: what is published with which progress, and when.

use std::time::Duration;

use millstream_core::{
    ConsumerGroup, ConsumerHandle, ErrorKind, Guarantee, OnExhausted, Producer, ProducerStats,
    Record, Result, Retry,
};
use tokio::task::JoinHandle;

use crate::desk::{Desk, group};
use crate::fake::{Call, Script, until};
use crate::live::LivePayloads;

async fn results(script: &Script) -> Producer {
    script.client.producer("results").open().await.unwrap()
}

/// Makes `<position>a` and `<position>b` of each record, at the desk.
fn run(
    desk: &Desk,
    group: ConsumerGroup,
    producer: &Producer,
) -> (ConsumerHandle, JoinHandle<Result<()>>) {
    let desk = desk.clone();
    let transform = move |delivery: millstream_core::Delivery| {
        let desk = desk.clone();
        async move {
            let position = delivery.position().to_string();
            desk.handle(delivery).await?;
            let named = |name| Record::new(format!("{position}{name}"));
            Ok::<_, String>(["a", "b"].map(named))
        }
    };
    let run = group.transform_to(producer, transform, std::future::pending());
    (run.handle(), tokio::spawn(run))
}

fn updates(updates: &[(&str, u64)]) -> Vec<(String, u64)> {
    let owned = |(id, position): &(&str, u64)| ((*id).to_owned(), *position);
    updates.iter().map(owned).collect()
}

fn published(payloads: &str, of: &[(&str, u64)]) -> (String, Vec<(String, u64)>) {
    (payloads.to_owned(), updates(of))
}

#[tokio::test(start_paused = true)]
async fn results_below_the_watermark_are_published_in_order() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(1);
    let (control, _run) = run(&desk, group(&script), &results(&script).await);
    script.assign("0", 1);
    script.records("0", 1, 0, "abc");
    until(|| script.publications().len() == 1).await;
    assert_eq!(script.publications(), [published("0a 0b", &[("0", 0)])]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(script.publications().len(), 1, "2 waits for 1");
    gate.notify_one();
    until(|| script.publications().len() == 2).await;
    let rest = published("1a 1b 2a 2b", &[("0", 2)]);
    assert_eq!(script.publications()[1], rest);
    assert_eq!(control.stats().published, 6);
}

#[tokio::test(start_paused = true)]
async fn one_call_is_for_all_partitions_one_after_the_other() {
    let (script, desk) = (Script::new(), Desk::default());
    let gates = [desk.gate(0), desk.gate(7)];
    run(&desk, group(&script), &results(&script).await);
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "ab");
    script.records("1", 1, 7, "cd");
    desk.until_begun(&[0, 1, 7, 8]).await;
    gates.iter().for_each(|gate| gate.notify_one());
    until(|| !script.publications().is_empty()).await;
    let (mut payloads, mut updates) = script.publications().remove(0);
    // Which partition comes first is no promise.
    if payloads.starts_with('7') {
        payloads = [&payloads[12..], &payloads[..11]].join(" ");
        updates.reverse();
    }
    assert_eq!(
        (payloads, updates),
        published("0a 0b 1a 1b 7a 7b 8a 8b", &[("0", 1), ("1", 8)])
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_published_with_the_next() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(1);
    script.refuse_updates(&[ErrorKind::Unavailable, ErrorKind::Throttled]);
    let producer = results(&script).await;
    let (control, _run) = run(&desk, group(&script), &producer);
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    until(|| script.publications().len() == 2).await;
    assert_eq!(producer.stats(), ProducerStats::default());
    gate.notify_one();
    until(|| control.stats().published == 4).await;
    let stats = producer.stats();
    assert_eq!((stats.sent, stats.stored, stats.in_flight), (4, 4, 0));
    let first = published("0a 0b", &[("0", 0)]);
    let all = published("0a 0b 1a 1b", &[("0", 1)]);
    assert_eq!(script.publications(), [first.clone(), first, all]);
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_is_published_in_parts() {
    let (script, desk) = (Script::new(), Desk::default());
    let producer = results(&script).await;
    script.time_out_above(5);
    let (control, _run) = run(&desk, group(&script), &producer);
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "abcdefgh");
    script.records("1", 1, 8, "ijklm");
    until(|| control.stats().published == 26).await;
    assert_eq!(script.progress("0", 1), Some(7));
    assert_eq!(script.progress("1", 1), Some(12));
    let stored = script.stored();
    let of = |range: std::ops::Range<u64>| {
        let named = |position| ["a", "b"].map(|name| format!("{position}{name}"));
        range.flat_map(named).collect::<Vec<_>>()
    };
    for expected in [of(0..8), of(8..13)] {
        let found = stored.iter().filter(|payload| expected.contains(payload));
        assert!(found.eq(&expected), "{stored:?}");
    }
    assert_eq!(control.stats().failures, 0);
}

/// Nothing can be taken away from it, and it did nothing wrong.
#[tokio::test(start_paused = true)]
async fn the_output_of_one_delivery_that_takes_too_long_is_tried_again() {
    let (script, desk) = (Script::new(), Desk::default());
    let producer = results(&script).await;
    script.time_out_above(1);
    let (control, _run) = run(&desk, group(&script), &producer);
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    until(|| script.publications().len() == 10).await;
    script.time_out_above(2);
    until(|| control.stats().published == 4).await;
    assert_eq!(script.stored(), ["0a", "0b", "1a", "1b"]);
    assert_eq!(control.stats().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_publication_loses_its_partitions_and_what_was_made_of_them() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_updates(&[ErrorKind::Fenced]);
    let (control, _run) = run(&desk, group(&script), &results(&script).await);
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    until(|| control.stats().lost == 1).await;
    script.assign("0", 2);
    script.records("0", 2, 0, "a");
    until(|| control.stats().published == 2).await;
    let publications = script.publications();
    assert_eq!(publications[1..], [published("0a 0b", &[("0", 0)])]);
}

#[tokio::test(start_paused = true)]
async fn what_was_made_of_a_lost_partition_is_dropped_also_while_it_is_under_way() {
    let (script, desk) = (Script::new(), Desk::default());
    let (control, _run) = run(
        &desk,
        group(&script).checkpoint_records(2),
        &results(&script).await,
    );
    let held = script.hold_publications().await;
    script.refuse_updates(&[ErrorKind::Unavailable]);
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "ab");
    until(|| script.publications().len() == 1).await;
    script.mark_lost("0", 1);
    until(|| control.stats().lost == 1).await;
    drop(held);
    script.records("1", 1, 5, "c");
    until(|| control.stats().published == 2).await;
    let last = script.publications().pop().unwrap();
    assert_eq!(last, published("5a 5b", &[("1", 5)]));
}

#[tokio::test(start_paused = true)]
async fn another_refusal_ends_the_membership() {
    for kind in [ErrorKind::Denied, ErrorKind::OutcomeUnknown] {
        let (script, desk) = (Script::new(), Desk::default());
        script.refuse_updates(&[kind]);
        let (_, run) = run(&desk, group(&script), &results(&script).await);
        script.assign("0", 1);
        script.records("0", 1, 0, "a");
        let error = run.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.group()), (kind, Some("g")));
        assert_eq!(script.publications().len(), 1, "it is not repeated");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_more_is_made_than_may_wait() {
    let (script, desk) = (Script::new(), Desk::default());
    let held = script.hold_publications().await;
    let small = group(&script).checkpoint_records(2);
    run(&desk, small, &results(&script).await);
    script.assign("0", 1);
    script.records("0", 1, 0, "abcdefgh");
    // Two results are under way, and two wait.
    desk.until_begun(&[0, 1]).await;
    drop(held);
    until(|| desk.begun().len() == 8).await;
    until(|| script.publications().last().unwrap().1 == updates(&[("0", 7)])).await;
}

#[tokio::test(start_paused = true)]
async fn bytes_bound_it_too() {
    let (script, desk) = (Script::new(), Desk::default());
    let held = script.hold_publications().await;
    let small = group(&script).buffer_bytes(13);
    run(&desk, small, &results(&script).await);
    script.assign("0", 1);
    script.records("0", 1, 0, "abc");
    script.records("0", 1, 3, "def");
    // Each record has 2 bytes, and makes 4.
    desk.until_begun(&[0, 1, 2]).await;
    drop(held);
    until(|| desk.begun().len() == 6).await;
}

/// What waited for the skipped record no longer does, although it is not published yet.
#[tokio::test(start_paused = true)]
async fn a_skipped_record_makes_room_for_results_behind_it() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(0);
    desk.fail(0, 1);
    let small = group(&script)
        .on_failure(Retry::none().then(OnExhausted::Skip))
        .checkpoint_interval(Duration::from_secs(3_600))
        .checkpoint_records(8);
    run(&desk, small, &results(&script).await);
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "abcdef");
    // Two of them make four results, which is the share of a partition.
    desk.until_begun(&[0, 1, 2]).await;
    gate.notify_one();
    desk.until_begun(&[0, 1, 2, 3, 4, 5]).await;
}

/// Few records have results. The others of their batches are settled, and must not stay in memory.
#[tokio::test(start_paused = true)]
async fn results_that_cannot_be_published_keep_no_other_records() {
    let (script, live) = (Script::new(), LivePayloads::default());
    script.refuse_updates(&[ErrorKind::Unavailable; 50]);
    let few = |delivery: millstream_core::Delivery| async move {
        let position = delivery.position().to_string();
        let is_first = position == "0" || position.ends_with("00");
        Ok::<_, String>(is_first.then(|| Record::new(position)))
    };
    let run = group(&script).transform_to(&results(&script).await, few, std::future::pending());
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    for batch in 0..10 {
        let numbers = batch * 100..(batch + 1) * 100;
        let records = numbers.map(|position| live.record(position, "a"));
        script.batch("0", 1, records.collect());
    }
    until(|| control.stats().settled == 1_000).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(control.stats().published, 0);
    assert_eq!(live.count(), 0, "results have copies of their records");
    until(|| control.stats().published == 10).await;
    let all = (0..10).map(|batch| format!("{}", batch * 100));
    assert_eq!(script.stored(), all.collect::<Vec<_>>());
}

/// What waits to be published lies behind a record that waits for its key: that one starts although
/// there is no room, or nothing would ever move again.
#[tokio::test(start_paused = true)]
async fn a_full_pipeline_still_starts_the_record_that_all_wait_for() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(0);
    let small = group(&script).checkpoint_records(1);
    let (control, _run) = run(&desk, small, &results(&script).await);
    script.assign("0", 1);
    script.records("0", 1, 0, "aaabcd");
    desk.until_begun(&[0, 3]).await;
    gate.notify_one();
    until(|| control.stats().published == 12).await;
    assert_eq!(desk.begun(), [0, 3, 1, 2, 4, 5]);
    let all: Vec<String> = script.publications().into_iter().map(|p| p.0).collect();
    assert_eq!(all.join(" "), "0a 0b 1a 1b 2a 2b 3a 3b 4a 4b 5a 5b");
}

#[tokio::test(start_paused = true)]
async fn a_drain_publishes_before_it_releases() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(1);
    let rarely = group(&script).checkpoint_interval(Duration::from_secs(3_600));
    let (control, run) = run(&desk, rarely, &results(&script).await);
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "ab");
    script.records("1", 1, 5, "c");
    desk.until_begun(&[0, 1, 5]).await;
    script.revoke("0", 1, Duration::from_secs(10));
    gate.notify_one();
    script.until_called(Call::Release("0".into())).await;
    assert_eq!(control.stats().published, 6);
    script.records("1", 1, 6, "d");
    desk.until_begun(&[0, 1, 5, 6]).await;
    control.shutdown();
    run.await.unwrap().unwrap();
    assert_eq!(control.stats().published, 8);
    let calls = script.steps();
    assert!(matches!(calls[0], Call::Publish(..)), "{calls:?}");
    assert_eq!(calls[1], Call::Release("0".into()));
    assert_eq!(
        calls[2..],
        [
            Call::Publish(vec!["6a".into(), "6b".into()], updates(&[("1", 6)])),
            Call::Leave
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn results_come_soon_unless_the_user_says_when() {
    for (interval, millis) in [(None, 100), (Some(Duration::from_millis(700)), 700)] {
        let (script, desk) = (Script::new(), Desk::default());
        let group = match interval {
            Some(interval) => group(&script).checkpoint_interval(interval),
            None => group(&script),
        };
        let begun = tokio::time::Instant::now();
        run(&desk, group, &results(&script).await);
        script.assign("0", 1);
        script.records("0", 1, 0, "a");
        until(|| !script.publications().is_empty()).await;
        let took = begun.elapsed().as_millis();
        assert!((millis..millis + 10).contains(&took), "{took} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_that_the_stream_does_not_take_fails_its_delivery() {
    let script = Script::new();
    let producer = results(&script).await;
    let too_large = |_| async { Ok::<_, String>([Record::new("12345678901")]) };
    let stops = group(&script).on_failure(Retry::none());
    let run = stops.transform_to(&producer, too_large, std::future::pending());
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    let error = run.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    assert!(format!("{error:?}").contains("at most 10"), "{error:?}");
    assert_eq!(script.steps(), [Call::Leave]);

    let script = Script::new();
    let producer = results(&script).await;
    producer.close().await.unwrap();
    let fits = |_| async { Ok::<_, String>([Record::new("1")]) };
    let stops = group(&script).on_failure(Retry::none());
    let run = stops.transform_to(&producer, fits, std::future::pending());
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    let error = run.await.unwrap_err();
    assert!(format!("{error:?}").contains("closed"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_result_that_only_the_driver_refuses_fails_its_delivery() {
    let script = Script::new();
    let producer = results(&script).await;
    let odd = |delivery: millstream_core::Delivery| async move {
        let position = delivery.position().to_string();
        Ok::<_, String>([match position == "1" {
            true => Record::new(position).header("odd", "x"),
            false => Record::new(position),
        }])
    };
    let skips = group(&script).on_failure(Retry::exponential().then(OnExhausted::Skip));
    let run = skips.transform_to(&producer, odd, std::future::pending());
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "abc");
    until(|| {
        script
            .publications()
            .contains(&published("0 2", &[("0", 2)]))
    })
    .await;
    assert_eq!((control.stats().failures, control.stats().skipped), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_cannot_write_to_what_its_group_reads() {
    let script = Script::new();
    let producer = results(&script).await;
    let nothing = |_| async { Ok::<[Record; 0], String>([]) };
    let reads = group(&script).stream("results");
    let run = reads.transform_to(&producer, nothing, std::future::pending());
    let error = run.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.group()),
        (ErrorKind::Invalid, Some("g"))
    );
    assert!(error.message().contains("writes to results"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_producer_of_another_client_cannot_be_exactly_once() {
    let script = Script::new();
    let other = script.another_client();
    let producer = other.producer("results").open().await.unwrap();
    let required = group(&script).require(Guarantee::ExactlyOnce);
    let nothing = |_| async { Ok::<[Record; 0], String>([]) };
    let run = required.transform_to(&producer, nothing, std::future::pending());
    let error = run.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.group()),
        (ErrorKind::Unsupported, Some("g"))
    );
    assert!(error.message().contains("another client"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_record_stops_no_other_partition() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(0);
    let small = group(&script).checkpoint_records(4);
    let (control, _run) = run(&desk, small, &results(&script).await);
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "abcdefg");
    until(|| desk.begun().contains(&1)).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    script.records("1", 1, 7, "hijklmnopqrst");
    until(|| {
        script
            .publications()
            .last()
            .is_some_and(|last| last.1 == updates(&[("1", 19)]))
    })
    .await;
    gate.notify_one();
    until(|| control.stats().published == 40).await;
    assert_eq!(
        script.publications().last().unwrap().1,
        updates(&[("0", 6)])
    );
}
