//! Results of an exactly-once pipeline that only the broker refuses.

use std::time::Duration;

use millstream_core::driver::Event;
use millstream_core::{
    ConsumerGroup, ConsumerHandle, DeadLetter, Delivery, Epoch, ErrorKind, OnExhausted, Record,
    Result, Retry,
};
use tokio::task::JoinHandle;

use crate::desk::{Desk, group};
use crate::fake::{Call, Script, partition, until};

/// Makes one result of each record, its position, and none of key `n`.
async fn run(
    script: &Script,
    desk: &Desk,
    group: ConsumerGroup,
) -> (ConsumerHandle, JoinHandle<Result<()>>) {
    let producer = script.client.producer("results").open().await.unwrap();
    let desk = desk.clone();
    let transform = move |delivery: Delivery| {
        let desk = desk.clone();
        async move {
            let result = delivery.key().is_none_or(|key| key != "n");
            let position = delivery.position().to_string();
            desk.handle(delivery).await?;
            Ok::<_, String>(result.then(|| Record::new(position)))
        }
    };
    let run = group.transform_to(&producer, transform, std::future::pending());
    (run.handle(), tokio::spawn(run))
}

fn skips(script: &Script) -> ConsumerGroup {
    group(script).on_failure(Retry::exponential().then(OnExhausted::Skip))
}

fn dead_letters(script: &Script) -> ConsumerGroup {
    group(script).on_failure(Retry::exponential().then(DeadLetter::stream("dead")))
}

fn delay_letters(script: &Script, seconds: u64) {
    *script.letters().latency.lock().unwrap() = Duration::from_secs(seconds);
}

/// What was published of a range of positions.
fn stored(script: &Script, of: std::ops::Range<u64>) -> Vec<u64> {
    let stored = script.stored();
    let positions = stored.iter().map(|payload| payload.parse::<u64>().unwrap());
    positions.filter(|position| of.contains(position)).collect()
}

#[tokio::test(start_paused = true)]
async fn only_the_refused_result_is_skipped() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_results(&["3"], ErrorKind::TooLarge);
    let (control, _run) = run(&script, &desk, skips(&script)).await;
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "abcdefgh");
    script.records("1", 1, 100, "abcd");
    until(|| script.progress("0", 1) == Some(7) && script.progress("1", 1) == Some(103)).await;
    assert_eq!(stored(&script, 0..100), [0, 1, 2, 4, 5, 6, 7]);
    assert_eq!(stored(&script, 100..200), [100, 101, 102, 103]);
    let stats = control.stats();
    assert_eq!((stats.failures, stats.skipped), (1, 1));
    assert_eq!((stats.settled, stats.published), (12, 11));
    let refused = script.publications().len();
    assert!(refused <= 9, "{refused} transactions for one record");
    // Whole transactions again.
    script.records("0", 1, 8, "abcd");
    until(|| script.progress("0", 1) == Some(11)).await;
    assert_eq!(script.publications().len(), refused + 1);
}

#[tokio::test(start_paused = true)]
async fn each_of_many_refused_results_is_found() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_results(&["0", "1", "5", "7", "102"], ErrorKind::Invalid);
    let (control, _run) = run(&script, &desk, skips(&script)).await;
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "abcdefgh");
    script.records("1", 1, 100, "abcd");
    until(|| script.progress("0", 1) == Some(7) && script.progress("1", 1) == Some(103)).await;
    assert_eq!(stored(&script, 0..100), [2, 3, 4, 6]);
    assert_eq!(stored(&script, 100..200), [100, 101, 103]);
    assert_eq!(control.stats().skipped, 5);
}

#[tokio::test(start_paused = true)]
async fn the_stop_names_position_and_cause_and_is_at_the_record() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_results(&["2"], ErrorKind::TooLarge);
    let (control, run) = run(&script, &desk, group(&script)).await;
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "anbc");
    script.records("1", 1, 100, "abcd");
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    assert_eq!(error.partition(), Some(&partition("0")));
    assert!(error.message().contains("position 2 "), "{error}");
    let causes = format!("{error:?}");
    assert!(
        causes.contains("publish failed (too_large): as scripted"),
        "{causes}"
    );
    assert!(causes.contains("the broker's own words"), "{causes}");
    // Also past the record before it, which has no result.
    assert_eq!(
        (script.progress("0", 1), script.progress("1", 1)),
        (Some(1), Some(103))
    );
    assert_eq!(stored(&script, 0..100), [0]);
    assert_eq!(control.stats().abandoned, 1);
    assert_eq!(script.steps().pop(), Some(Call::Leave));
}

/// The attempts of the handler count, also when they are over.
#[tokio::test(start_paused = true)]
async fn the_attempt_that_made_the_result_is_named() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.fail(1, 2);
    script.refuse_results(&["1"], ErrorKind::Invalid);
    let (_, run) = run(&script, &desk, group(&script)).await;
    script.assign("0", 1);
    script.records("0", 1, 0, "abc");
    let error = run.await.unwrap().unwrap_err();
    let message = "position 1 failed permanently at attempt 3";
    assert_eq!(error.message(), message);
}

#[tokio::test(start_paused = true)]
async fn the_checkpoint_waits_for_the_letter_and_other_partitions_do_not() {
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(201);
    script.refuse_results(&["2"], ErrorKind::TooLarge);
    delay_letters(&script, 300);
    let (control, _run) = run(&script, &desk, dead_letters(&script)).await;
    for id in ["0", "1", "2"] {
        script.assign(id, 1);
    }
    script.records("0", 1, 0, "abcd");
    script.records("1", 1, 100, "abcd");
    script.records("2", 1, 200, "ab");
    until(|| script.progress("1", 1) == Some(103)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    script.records("0", 1, 4, "e");
    script.records("1", 1, 104, "e");
    until(|| script.progress("1", 1) == Some(104)).await;
    assert_eq!(stored(&script, 0..100), [0, 1]);
    assert_eq!(script.progress("0", 1), Some(1));
    assert_eq!(script.progress("2", 1), Some(200));
    let stats = &control.partitions()[&partition("0")];
    assert_eq!((stats.settled, stats.unsettled), (Some(1.into()), 3));
    let oldest = stats.oldest_unsettled.as_ref().unwrap();
    assert_eq!((oldest.position, oldest.attempt), (2.into(), 1));
    assert!(oldest.age() >= Some(Duration::from_secs(60)));
    assert_eq!(control.stats().dead_lettered, 0);
    until(|| script.progress("0", 1) == Some(4)).await;
    assert_eq!(stored(&script, 0..100), [0, 1, 3, 4]);
    let letters = script.letters().records();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].payload.as_deref(), Some(&b"2"[..]));
    let header = |name| {
        let value = letters[0].headers.get(name).unwrap();
        String::from_utf8_lossy(value).into_owned()
    };
    let reason = header("millstream-dead-reason");
    assert!(reason.contains("publish failed (too_large)"), "{reason}");
    assert!(reason.contains("the broker's own words"), "{reason}");
    assert_eq!(header("millstream-dead-position"), "2");
    assert_eq!(control.stats().dead_lettered, 1);
    gate.notify_one();
    until(|| script.progress("2", 1) == Some(201)).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_the_letter_is_searched_when_it_is_stored() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_results(&["1", "2", "6"], ErrorKind::Invalid);
    delay_letters(&script, 5);
    let (control, _run) = run(&script, &desk, dead_letters(&script)).await;
    script.assign("0", 1);
    script.records("0", 1, 0, "abcdefgh");
    until(|| script.progress("0", 1) == Some(7)).await;
    assert_eq!(stored(&script, 0..100), [0, 3, 4, 5, 7]);
    let letters = script.letters().records();
    let letters: Vec<_> = letters
        .iter()
        .map(|letter| letter.payload.clone().unwrap())
        .collect();
    assert_eq!(letters, ["1", "2", "6"]);
    assert_eq!(control.stats().dead_lettered, 3);
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_letter() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_results(&["1"], ErrorKind::Invalid);
    delay_letters(&script, 5);
    let (control, run) = run(&script, &desk, dead_letters(&script)).await;
    script.assign("0", 1);
    script.records("0", 1, 0, "abcd");
    until(|| control.stats().failures == 1).await;
    script.revoke("0", 1, Duration::from_secs(30));
    script.until_called(Call::Release("0".into())).await;
    assert_eq!(script.progress("0", 1), Some(3));
    assert_eq!(
        (control.stats().dead_lettered, control.stats().abandoned),
        (1, 0)
    );
    script.assign("1", 1);
    script.records("1", 1, 0, "ab");
    until(|| control.stats().failures == 2).await;
    control.shutdown();
    run.await.unwrap().unwrap();
    assert_eq!(script.progress("1", 1), Some(1));
    assert_eq!(
        (control.stats().dead_lettered, control.stats().abandoned),
        (2, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_takes_too_long_is_left_to_the_next_owner() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_results(&["1"], ErrorKind::Invalid);
    delay_letters(&script, 3_600);
    let (control, run) = run(&script, &desk, dead_letters(&script)).await;
    script.assign("0", 1);
    script.records("0", 1, 0, "abcd");
    until(|| control.stats().failures == 1).await;
    script.revoke("0", 1, Duration::from_secs(3));
    script.until_called(Call::Release("0".into())).await;
    assert_eq!(
        (script.progress("0", 1), stored(&script, 0..9)),
        (Some(0), vec![0])
    );
    until(|| control.stats().released == 1).await;
    assert_eq!(
        (control.stats().abandoned, control.stats().in_flight),
        (1, 0)
    );
    script.assign("1", 1);
    script.records("1", 1, 0, "ab");
    until(|| control.stats().failures == 2).await;
    let asked = tokio::time::Instant::now();
    control.shutdown();
    run.await.unwrap().unwrap();
    let took = asked.elapsed();
    assert!((10..16).contains(&took.as_secs()), "{took:?}");
    assert_eq!(
        (script.progress("1", 1), control.stats().abandoned),
        (Some(0), 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_closing_member_stops_at_a_refused_result_too() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_results(&["1"], ErrorKind::Invalid);
    let (control, run) = run(&script, &desk, group(&script)).await;
    let held = script.hold_publications().await;
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "abcd");
    script.records("1", 1, 100, "ab");
    until(|| script.publications().len() == 1).await;
    control.shutdown();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(held);
    let asked = tokio::time::Instant::now();
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(
        (script.progress("0", 1), script.progress("1", 1)),
        (Some(0), Some(101))
    );
    assert_eq!(
        (stored(&script, 0..100), control.stats().abandoned),
        (vec![0], 1)
    );
    assert_eq!(script.steps().pop(), Some(Call::Leave));
}

#[tokio::test(start_paused = true)]
async fn a_lost_partition_leaves_the_search() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_results(&["1"], ErrorKind::Invalid);
    delay_letters(&script, 60);
    let (control, _run) = run(&script, &desk, dead_letters(&script)).await;
    script.assign("0", 1);
    script.records("0", 1, 0, "abcd");
    until(|| control.stats().failures == 1).await;
    script.mark_lost("0", 1);
    until(|| control.stats().lost == 1).await;
    assert_eq!(control.stats().abandoned, 1);
    script.refuse_results(&[], ErrorKind::Invalid);
    script.assign("0", 2);
    script.records("0", 2, 1, "bcd");
    until(|| script.progress("0", 2) == Some(3)).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(stored(&script, 0..9), [0, 1, 2, 3]);
    assert_eq!(control.stats().dead_lettered, 0);
}

/// The refused record was of the lost partition, and the only one that is left is good.
#[tokio::test(start_paused = true)]
async fn a_partition_is_not_blamed_for_another_one_that_is_lost() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_results(&["100"], ErrorKind::Invalid);
    let (control, _run) = run(&script, &desk, skips(&script)).await;
    let held = script.hold_publications().await;
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "a");
    script.records("1", 1, 100, "a");
    until(|| script.publications().len() == 1).await;
    script.mark_lost("1", 1);
    until(|| control.stats().lost == 1).await;
    drop(held);
    until(|| script.progress("0", 1) == Some(0)).await;
    assert_eq!(
        (script.stored(), control.stats().skipped),
        (vec!["0".to_owned()], 0)
    );
}

#[tokio::test(start_paused = true)]
async fn an_outage_does_not_disturb_the_search() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_results(&["5"], ErrorKind::Invalid);
    let (control, _run) = run(&script, &desk, skips(&script)).await;
    let held = script.hold_publications().await;
    script.assign("0", 1);
    script.records("0", 1, 0, "abcdefgh");
    until(|| script.publications().len() == 1).await;
    script.refuse_updates(&[
        ErrorKind::Invalid,
        ErrorKind::Unavailable,
        ErrorKind::TooLarge,
        ErrorKind::Timeout,
        ErrorKind::Throttled,
    ]);
    drop(held);
    until(|| script.progress("0", 1) == Some(7)).await;
    assert_eq!(stored(&script, 0..9), [0, 1, 2, 3, 4, 6, 7]);
    assert_eq!(control.stats().skipped, 1);
}

/// The progress of another partition cannot be stored. It must not take every turn.
#[tokio::test(start_paused = true)]
async fn parts_and_whole_transactions_take_turns_in_an_outage() {
    let (script, desk) = (Script::new(), Desk::default());
    let outage = [ErrorKind::Unavailable; 4];
    script.refuse_updates(&[&[ErrorKind::Invalid; 2][..], &outage].concat());
    let (control, _run) = run(&script, &desk, skips(&script)).await;
    let held = script.hold_publications().await;
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "abcd");
    until(|| script.publications().len() == 1).await;
    script.records("1", 1, 100, "ab");
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(held);
    until(|| script.progress("0", 1) == Some(3) && script.progress("1", 1) == Some(101)).await;
    let tried: Vec<String> = script
        .publications()
        .into_iter()
        .map(|(of, _)| of)
        .collect();
    assert_eq!(
        tried[..6],
        ["0 1 2 3", "0 1", "100 101", "0", "100 101", "0"]
    );
    assert_eq!(control.stats().skipped, 0);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_part_loses_its_partitions_and_no_others() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_updates(&[ErrorKind::Invalid, ErrorKind::Fenced]);
    let (control, _run) = run(&script, &desk, skips(&script)).await;
    let held = script.hold_publications().await;
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "abcdefgh");
    script.records("1", 1, 100, "abcd");
    until(|| script.publications().len() == 1).await;
    drop(held);
    until(|| script.progress("1", 1) == Some(103)).await;
    assert!(stored(&script, 0..100).is_empty());
    assert_eq!((control.stats().lost, control.stats().skipped), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn another_refusal_of_a_part_ends_the_membership() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_updates(&[ErrorKind::Invalid, ErrorKind::Denied]);
    let (_, run) = run(&script, &desk, skips(&script)).await;
    script.assign("0", 1);
    script.records("0", 1, 0, "abcd");
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
}

/// Progress alone has no record that could be refused.
#[tokio::test(start_paused = true)]
async fn an_invalid_checkpoint_ends_the_membership() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_updates(&[ErrorKind::Invalid]);
    let (_, run) = run(&script, &desk, skips(&script)).await;
    script.assign("0", 1);
    script.records("0", 1, 0, "n");
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_closed_partition_is_not_completed_before_the_letter_is_stored() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_results(&["3"], ErrorKind::Invalid);
    delay_letters(&script, 60);
    let (control, _run) = run(&script, &desk, dead_letters(&script)).await;
    script.assign("0", 1);
    script.records("0", 1, 0, "abcd");
    script.emit(Event::Ended {
        partition: partition("0"),
        epoch: Epoch(1),
    });
    until(|| control.stats().failures == 1).await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(script.progress("0", 1), Some(2));
    assert!(!script.calls().contains(&Call::Complete("0".into())));
    script.until_called(Call::Complete("0".into())).await;
    assert_eq!(script.progress("0", 1), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_partition_runs_no_further_ahead_of_a_letter_than_of_a_handler() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_results(&["0"], ErrorKind::Invalid);
    delay_letters(&script, 600);
    let small = dead_letters(&script).max_unsettled_per_partition(4);
    let (_, _run) = run(&script, &desk, small).await;
    script.assign("0", 1);
    script.records("0", 1, 0, "n");
    script.records("0", 1, 1, "a");
    let small = |calls: &[Call]| calls.iter().any(|call| *call == Call::Pause("0".into()));
    until(|| script.progress("0", 1) == Some(1)).await;
    script.refuse_results(&["2"], ErrorKind::Invalid);
    script.records("0", 1, 2, "a");
    tokio::time::sleep(Duration::from_secs(1)).await;
    script.records("0", 1, 3, "nn");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!small(&script.calls()));
    script.records("0", 1, 5, "n");
    until(|| small(&script.calls())).await;
    assert_eq!(script.progress("0", 1), Some(1));
    script.until_called(Call::Resume("0".into())).await;
    until(|| script.progress("0", 1) == Some(5)).await;
}

/// A partition that waits for a letter fills its share of the buffer only.
#[tokio::test(start_paused = true)]
async fn results_behind_a_letter_leave_room_for_others() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_results(&["0"], ErrorKind::Invalid);
    delay_letters(&script, 600);
    let small = dead_letters(&script).checkpoint_records(8);
    let (control, _run) = run(&script, &desk, small).await;
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "a");
    until(|| control.stats().failures == 1).await;
    script.records("0", 1, 1, "abcdefghijklmnopqrstuvwxyz");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = desk.begun().len();
    assert!((2..8).contains(&begun), "{begun} were begun");
    script.records("1", 1, 100, "abcdefghijklm");
    until(|| script.progress("1", 1) == Some(112)).await;
    assert_eq!(
        desk.begun()
            .iter()
            .filter(|position| **position < 100)
            .count(),
        begun
    );
    assert_eq!(script.progress("0", 1), None);
    until(|| script.progress("0", 1) == Some(26)).await;
    assert_eq!(
        stored(&script, 0..100),
        (1..14).chain(15..27).collect::<Vec<_>>()
    );
}

/// The buffer was full when the result was refused: others go on one by one.
#[tokio::test(start_paused = true)]
async fn a_full_buffer_behind_a_letter_stops_no_other_partition() {
    let (script, desk) = (Script::new(), Desk::default());
    script.refuse_results(&["0"], ErrorKind::Invalid);
    delay_letters(&script, 3_600);
    let small = dead_letters(&script).checkpoint_records(8);
    let (_, _run) = run(&script, &desk, small).await;
    let held = script.hold_publications().await;
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "abcdefghijklmnopqrst");
    until(|| script.publications().len() == 1).await;
    drop(held);
    script.records("1", 1, 100, "abcdefghijklm");
    until(|| script.progress("1", 1) == Some(112)).await;
    assert_eq!(
        (script.progress("0", 1), stored(&script, 0..100)),
        (None, vec![])
    );
}
