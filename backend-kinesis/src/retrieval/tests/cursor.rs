//! The start positions of a reader, and its return to its position.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use millstream_core::{ErrorKind, Position, Record};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::super::answer::Raw;
use super::super::cursor::ReadCursor;
use super::super::source::StartingPosition;
use super::super::{ReadEvent, ResumePoint, RetrievalMode, Settings};
use super::fake::{Fake, Request, iterator, raw};
use super::registry::fan_out;
use super::{Run, ago, latest, position, run, run_in, run_with, secs, settings};
use crate::aggregate::AggregateBuilder;

#[tokio::test(start_paused = true)]
async fn earliest_is_the_oldest_that_is_left() {
    let fake = Fake::new(1..=40);
    fake.lock().trimmed = 5;
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(6..=40).await;
    fake.store(41..=50);
    run.expect(41..=50).await;
}

#[tokio::test(start_paused = true)]
async fn resumes_after_the_last_record() {
    let fake = Fake::new(1..=20);
    let mut run = run(&fake, ResumePoint::After(position("15")));
    run.expect(16..=20).await;
    assert_eq!(fake.positions(), [StartingPosition::At(position("15"))]);
}

#[tokio::test(start_paused = true)]
async fn resumes_after_the_last_of_all() {
    let fake = Fake::new(1..=20);
    let mut run = run(&fake, ResumePoint::After(position("20")));
    run.expect_nothing(secs(60)).await;
    fake.store(21..=22);
    run.expect(21..=22).await;
}

async fn expect_gap(run: &mut Run, from: &str, to: &str) {
    match run.next().await {
        ReadEvent::DataLoss { after, earliest } => {
            assert_eq!((after, earliest), (Some(position(from)), position(to)));
        }
        event => panic!("{event:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn tells_a_gap_before_what_follows_it() {
    let fake = Fake::new(1..=20);
    fake.lock().trimmed = 10;
    let mut run = run(&fake, ResumePoint::After(position("4.2")));
    expect_gap(&mut run, "4.2", "11").await;
    run.expect(11..=20).await;
}

#[tokio::test(start_paused = true)]
async fn empty_answers_do_not_hide_a_gap() {
    let fake = Fake::new(1..=20);
    {
        let mut inner = fake.lock();
        (inner.trimmed, inner.empty_answers) = (20, 7);
    }
    let mut run = run(&fake, ResumePoint::After(position("4")));
    run.expect_nothing(secs(1_000)).await;
    fake.store(21..=22);
    expect_gap(&mut run, "4", "21").await;
    run.expect(21..=22).await;
}

#[tokio::test(start_paused = true)]
async fn a_number_that_is_refused_is_no_end_and_no_gap() {
    for kind in [ErrorKind::NotFound, ErrorKind::Invalid] {
        let fake = Fake::new((1..=20).map(|number| number * 10));
        fake.lock().refuses_unknown = Some(kind);
        let mut run = run(&fake, ResumePoint::After(position("75")));
        run.expect((8..=20).map(|number| number * 10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_number_that_is_refused_since_it_is_trimmed_is_a_gap() {
    let fake = Fake::new(1..=20);
    {
        let mut inner = fake.lock();
        (inner.trimmed, inner.refuses_unknown) = (10, Some(ErrorKind::NotFound));
    }
    let mut run = run(&fake, ResumePoint::After(position("7")));
    expect_gap(&mut run, "7", "11").await;
    run.expect(11..=20).await;
}

#[tokio::test(start_paused = true)]
async fn a_time_leads_to_the_first_record_of_it() {
    let fake = Fake::new(1..=20);
    let at = ago(100);
    for raw in &mut fake.lock().records[..12] {
        raw.arrival = Some(at - Duration::from_millis(1));
    }
    // An emulator that treats the time as a hint.
    fake.lock().records[3].arrival = Some(at);
    fake.lock().records[2].arrival = Some(at);
    let mut run = run(&fake, ResumePoint::At(at));
    // Once begun, nothing is left out: clocks differ.
    run.expect(3..=20).await;
}

/// Returns a record with an explicit timestamp, which Kinesis stored at `arrival`.
fn stamped(number: u64, timestamp: SystemTime, arrival: SystemTime) -> Raw {
    let mut aggregate = AggregateBuilder::new();
    let record = Record::new("payload").timestamp(timestamp);
    aggregate.push(&Bytes::from_static(b"key"), &record);
    let entry = aggregate.finish().expect("it is not empty");
    Raw {
        key: entry.partition_key,
        data: entry.data,
        arrival: Some(arrival),
        ..raw(number)
    }
}

/// Reads from 100 seconds ago, a start that was resolved 50 seconds ago.
fn run_at(fake: &Arc<Fake>) -> Run {
    run_with(
        fake,
        Settings {
            resolved: Some(ago(50)),
            ..settings(ResumePoint::At(ago(100)))
        },
    )
}

#[tokio::test(start_paused = true)]
async fn a_time_is_compared_with_the_timestamps_that_readers_see() {
    let fake = Fake::new([]);
    let (old, new, stored) = (ago(1_000), ago(99), ago(90));
    fake.lock().records = vec![
        stamped(1, old, stored),
        stamped(2, old, stored),
        stamped(3, new, stored),
        stamped(4, old, stored),
        stamped(5, new, stored),
    ];
    run_at(&fake).expect(3..=5).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_after_a_time_was_decided_on_is_read_whatever_its_timestamp() {
    let fake = Fake::new([]);
    let old = ago(1_000);
    fake.lock().records = vec![stamped(1, old, ago(90)), stamped(2, old, ago(40))];
    run_at(&fake).expect([2]).await;

    // With clock skew, it may look as if it was stored before.
    let fake = Fake::new([]);
    fake.lock().records = vec![stamped(1, old, ago(90))];
    let mut run = run_at(&fake);
    run.expect_nothing(secs(5)).await;
    fake.lock().records.push(stamped(2, old, ago(60)));
    run.expect([2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_beginning_that_was_decided_on_long_ago_may_be_a_gap() {
    for (resolved, is_gap) in [(ago(DAY), true), (ago(3_600), false)] {
        let fake = Fake::new(1..=20);
        fake.lock().trimmed = 10;
        let mut run = run_with(
            &fake,
            Settings {
                resolved: Some(resolved),
                ..settings(ResumePoint::Earliest)
            },
        );
        if is_gap {
            match run.next().await {
                ReadEvent::DataLoss { after, earliest } => {
                    assert_eq!((after, earliest), (None, position("11")));
                }
                event => panic!("{event:?}"),
            }
        }
        run.expect(11..=20).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_to_come_is_waited_for() {
    let fake = Fake::new(1..=20);
    let at = SystemTime::now() + secs(3_600);
    let mut run = run(&fake, ResumePoint::At(at));
    run.expect_nothing(secs(1)).await;
    fake.store(21..=25);
    run.expect_nothing(secs(1)).await;
    fake.store(26..=30);
    for raw in &mut fake.lock().records[25..] {
        raw.arrival = Some(at + secs(1));
    }
    run.expect(26..=30).await;
    let positions = fake.positions();
    assert_eq!(
        positions[0],
        StartingPosition::Time(at - Duration::from_millis(1))
    );
    let is_soon = |position: &StartingPosition| matches!(position, StartingPosition::Time(soon) if *soon <= ago(5));
    assert!(is_soon(&positions[1]), "{positions:?}");
}

/// Records are stored after the first request, and before the one that follows its rejection.
#[tokio::test(start_paused = true)]
async fn a_time_that_comes_between_two_requests_loses_nothing() {
    for is_far_apart in [false, true] {
        let fake = Fake::new(1..=20);
        fake.lock().rejects_times = is_far_apart;
        let at = SystemTime::now() + secs(3_600);
        let mut run = run(&fake, ResumePoint::At(at));
        while fake.positions().is_empty() {
            yield_now().await;
        }
        fake.store(21..=25);
        for raw in &mut fake.lock().records[20..] {
            raw.arrival = Some(at + secs(1));
        }
        run.expect(21..=25).await;
        let is_time = |position: &&StartingPosition| matches!(position, StartingPosition::Time(_));
        let times = fake.positions().iter().filter(is_time).count();
        assert_eq!(times, 2, "the second one is rejected: {is_far_apart}");
    }
}

#[tokio::test(start_paused = true)]
async fn latest_is_what_came_after_the_iterator() {
    let fake = Fake::new(1..=25);
    let mut run = run(&fake, latest(iterator(20), ago(60)));
    run.expect(21..=25).await;
    assert_eq!(fake.positions(), []);
}

#[tokio::test(start_paused = true)]
async fn an_iterator_that_is_too_old_is_replaced_by_its_time() {
    let fake = Fake::new(1..=25);
    for raw in &mut fake.lock().records[..20] {
        raw.arrival = Some(ago(600));
    }
    let pinned = iterator(20);
    tokio::time::advance(secs(301)).await;
    let mut run = run(&fake, latest(pinned, ago(301)));
    run.expect(21..=25).await;
}

#[tokio::test(start_paused = true)]
async fn latest_skips_nothing_when_its_first_iterator_is_too_old() {
    let fake = Fake::new(1..=20);
    for raw in &mut fake.lock().records {
        raw.arrival = Some(ago(600));
    }
    let mut run = run(&fake, latest(iterator(20), SystemTime::now()));
    run.expect_nothing(secs(1)).await;
    run.reader.pause();
    fake.store(21..=25);
    run.expect_nothing(secs(400)).await;
    run.reader.resume();
    run.expect(21..=25).await;
}

#[tokio::test(start_paused = true)]
async fn an_iterator_that_is_too_old_is_no_gap_and_no_repetition() {
    let fake = Fake::new(1..=50);
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(1..=9).await;
    run.reader.pause();
    run.expect_nothing(secs(400)).await;
    run.reader.resume();
    run.expect(10..=50).await;
    let is_iterator =
        |request: &Request| matches!(request, Request::Iterator(StartingPosition::At(_)));
    assert_eq!(fake.times(is_iterator).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pause_longer_than_retention_may_be_a_gap() {
    let fake = Fake::new(1..=50);
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(1..=9).await;
    run.reader.pause();
    run.expect_nothing(secs(1_000)).await;
    for _ in 0..30 {
        run.expect_nothing(secs(3_000)).await;
    }
    fake.lock().trimmed = 40;
    run.reader.resume();
    // The buffered record arrives first.
    run.expect([10]).await;
    expect_gap(&mut run, "10", "41").await;
    run.expect(41..=50).await;
}

/// A little more than a day, the time for which records are kept.
const DAY: u64 = 90_000;

fn run_since(fake: &Arc<Fake>, begin: ResumePoint, tip: SystemTime) -> Run {
    run_with(
        fake,
        Settings {
            caught_up: Some(tip),
            ..settings(begin)
        },
    )
}

#[tokio::test(start_paused = true)]
async fn a_quiet_shard_is_no_gap_if_it_was_looked_at() {
    let fake = Fake::new(1..=20);
    fake.lock().trimmed = 20;
    let mut run = run_since(&fake, ResumePoint::After(position("20")), ago(3_600));
    run.expect_nothing(secs(60)).await;
    fake.store(21..=25);
    run.expect(21..=25).await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_shard_may_be_a_gap_if_it_was_looked_at_long_ago() {
    let fake = Fake::new(1..=20);
    fake.lock().trimmed = 20;
    let mut run = run_since(&fake, ResumePoint::After(position("20")), ago(DAY));
    fake.store(21..=25);
    expect_gap(&mut run, "20", "21").await;
    run.expect(21..=25).await;
}

#[tokio::test(start_paused = true)]
async fn that_nothing_is_left_is_told_now_and_then() {
    let fake = Fake::new(1..=20);
    let mut run = run(&fake, ResumePoint::After(position("7")));
    let begun = (Instant::now(), SystemTime::now());
    let (after, at) = run.caught_up().await;
    assert_eq!(after, Some(position("20")));
    assert!(at >= begun.1 && at <= SystemTime::now(), "{at:?}");
    for minute in 1..=3 {
        run.caught_up().await;
        let told = begun.0.elapsed();
        assert!(
            (minute * 60..minute * 60 + 2).contains(&told.as_secs()),
            "{told:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_be_a_gap_is_not_told_to_be_nothing() {
    let fake = Fake::new(1..=20);
    fake.lock().trimmed = 20;
    let mut run = run(&fake, ResumePoint::After(position("7")));
    assert!(timeout(secs(1_000), run.caught_up()).await.is_err());
    fake.store([21]);
    expect_gap(&mut run, "7", "21").await;
}

#[tokio::test(start_paused = true)]
async fn a_tip_that_was_pinned_long_ago_may_be_a_gap() {
    let fake = Fake::new(1..=20);
    fake.lock().trimmed = 10;
    let pinned = iterator(5);
    tokio::time::advance(secs(DAY)).await;
    let mut run = run(&fake, latest(pinned, ago(DAY)));
    match run.next().await {
        ReadEvent::DataLoss { after, earliest } => {
            assert_eq!((after, earliest), (None, position("11")));
        }
        event => panic!("{event:?}"),
    }
    run.expect(11..=20).await;
}

#[test]
fn a_first_subscription_begins_between_the_pin_and_the_last_look_with_room_for_skew() {
    const SKEW: Duration = Duration::from_secs(5);
    for seed in 0..1_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let pinned = SystemTime::now() - secs(3_600);
        let mut cursor = ReadCursor::new(latest(iterator(20), pinned), None, None);
        let mut asked = pinned;
        while !cursor.is_quiet() {
            asked += Duration::from_millis(rng.u64(0..3_000));
            let behind = Duration::from_millis(if rng.bool() { 0 } else { 7 });
            cursor.note_behind(asked, Instant::now(), Some(behind));
        }
        match cursor.look() {
            StartingPosition::Time(at) => {
                assert!(at >= pinned + SKEW, "not earlier, with seed {seed}");
                assert!(at <= asked - SKEW, "not later, with seed {seed}");
            }
            position => panic!("{position:?} with seed {seed}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn empty_answers_do_not_move_a_place_in_time() {
    let fake = Fake::new(1..=25);
    {
        let mut inner = fake.lock();
        for (raw, secs) in inner
            .records
            .iter_mut()
            .zip([600; 20].into_iter().chain([100; 5]))
        {
            raw.arrival = Some(ago(secs));
        }
        inner.empty_answers = 1_000_000;
    }
    let pinned = iterator(20);
    tokio::time::advance(secs(301)).await;
    let mut run = run(&fake, latest(pinned, ago(301)));
    run.expect_nothing(secs(5)).await;
    run.reader.pause();
    run.expect_nothing(secs(400)).await;
    fake.lock().empty_answers = 0;
    run.reader.resume();
    run.expect(21..=25).await;
}

/// Reads until a gap is reported. Returns the position before it.
async fn read_to_gap(run: &mut Run, earliest: &str) -> Option<Position> {
    let mut last = None;
    loop {
        match run.next().await {
            ReadEvent::Records { records, .. } => last = records.last().map(|r| r.position),
            ReadEvent::DataLoss { after, earliest: e } => {
                assert_eq!((after, e), (last, position(earliest)));
                return after;
            }
            event => panic!("{event:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_goes_while_it_is_read_is_told() {
    for mode in [RetrievalMode::Polling, fan_out()] {
        let fake = Fake::new(1..=200);
        fake.lock().age = secs(DAY);
        let mut run = run_in(mode, &fake, ResumePoint::Earliest);
        run.expect(1..=3).await;
        fake.lock().trimmed = 150;
        let after = read_to_gap(&mut run, "151").await;
        assert!(after < Some(position("50")), "{after:?}");
        run.expect(151..=200).await;
        // A record after a long time is no gap, and each record is passed.
        fake.lock().page = 1;
        fake.store(201..=205);
        run.expect(201..=205).await;
    }
}
