//! The request rate of a reader, its handling of errors, and its buffering.

use std::time::Duration;

use bytes::Bytes;
use millstream_core::ErrorKind;
use tokio::time::{Instant, sleep};

use super::super::{Budget, ReadEvent, ResumePoint, Settings};
use super::fake::{Fake, Request};
use super::{Run, position, run, run_with, secs, settings};

const RECORDS: fn(&Request) -> bool = |request| *request == Request::Records;

fn gaps(times: &[Instant]) -> Vec<Duration> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn asks_at_once_for_more_and_rarely_at_the_tip() {
    let fake = Fake::new(1..=100);
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(1..=100).await;
    run.expect_nothing(secs(10)).await;
    let gaps = gaps(&fake.times(RECORDS));
    let ms = Duration::from_millis;
    // A tenth more at most, in whole milliseconds.
    let busy = ms(200)..=ms(221);
    assert!(gaps[..9].iter().all(|gap| busy.contains(gap)), "{gaps:?}");
    assert!(gaps[10..].iter().all(|gap| *gap == ms(250)), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_is_paid_for() {
    let fake = Fake::new(1..=2);
    {
        let mut inner = fake.lock();
        inner.page = 1;
        inner.records[0].data = Bytes::from(vec![0; 8 << 20]);
    }
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(1..=2).await;
    assert!(gaps(&fake.times(RECORDS))[0] >= secs(4));
}

#[tokio::test(start_paused = true)]
async fn throttles_lower_the_rate_and_lose_nothing() {
    let fake = Fake::new(1..=100);
    fake.lock().records_faults = [ErrorKind::Throttled; 20].into();
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(1..=100).await;
    let gaps = gaps(&fake.times(RECORDS));
    assert!(gaps[10..20].iter().all(|gap| *gap >= secs(1)), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_tried_again() {
    let fake = Fake::new(1..=30);
    let faults = [ErrorKind::Unavailable, ErrorKind::Timeout];
    {
        let mut inner = fake.lock();
        inner.iterator_faults = faults.repeat(10).into();
        inner.records_faults = faults.repeat(10).into();
    }
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(1..=30).await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_is_told() {
    for kind in [
        ErrorKind::Denied,
        ErrorKind::Unauthenticated,
        ErrorKind::Corrupt,
    ] {
        let fake = Fake::new(1..=30);
        fake.lock().records_faults = [kind].into();
        let mut run = run(&fake, ResumePoint::Earliest);
        match run.next().await {
            ReadEvent::Failed(error) => assert_eq!(error.kind(), kind),
            event => panic!("{event:?}"),
        }
        assert!(run.said.recv().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_ever_is_told() {
    let fake = Fake::new(1..=30);
    fake.lock().iterator_faults = [ErrorKind::Invalid; 100].into();
    let mut run = run(&fake, ResumePoint::Earliest);
    match run.next().await {
        ReadEvent::Failed(error) => assert_eq!(error.kind(), ErrorKind::Invalid),
        event => panic!("{event:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_gone_is_told() {
    let fake = Fake::new(1..=3);
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(1..=3).await;
    fake.lock().deleted = true;
    match run.next().await {
        ReadEvent::Failed(error) => {
            assert_eq!(
                (error.kind(), error.stream()),
                (ErrorKind::NotFound, Some("s"))
            );
        }
        event => panic!("{event:?}"),
    }
}

/// A paused reader keeps the room that another one waits for, only for a while.
#[tokio::test(start_paused = true)]
async fn paused_readers_give_their_room_to_others_and_lose_nothing() {
    // Room for one response.
    let budget = Budget::new(1);
    let fakes = [Fake::new(1..=100), Fake::new(1..=100)];
    let mut runs = fakes.each_ref().map(|fake| {
        fake.lock().page = 50;
        run_with(
            fake,
            Settings {
                budget: budget.clone(),
                ..settings(ResumePoint::Earliest)
            },
        )
    });
    let [paused, other] = &mut runs;
    paused.expect(1..=7).await;
    paused.reader.pause();
    other.expect(1..=100).await;
    other.expect_nothing(secs(100)).await;
    paused.reader.resume();
    paused.expect(8..=100).await;
}

#[tokio::test(start_paused = true)]
async fn paused_readers_keep_their_records_if_nobody_waits() {
    let fake = Fake::new(1..=100);
    fake.lock().page = 100;
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(1..=7).await;
    run.reader.pause();
    sleep(secs(100)).await;
    run.reader.resume();
    run.expect(8..=90).await;
    assert_eq!(fake.times(RECORDS).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn timeouts_lower_the_number_of_records_of_a_request() {
    let fake = Fake::new(1..=100);
    {
        let mut inner = fake.lock();
        inner.page = 100;
        inner.records_faults = [ErrorKind::Timeout; 5].into();
    }
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(1..=100).await;
    // 9 records, then 18, 36 and 72.
    assert_eq!(fake.times(RECORDS).len(), 5 + 4);
}

#[tokio::test(start_paused = true)]
async fn nobody_who_takes_is_nobody_to_ask_for() {
    let fake = Fake::new(1..=1_000);
    let mut run = run(&fake, ResumePoint::Earliest);
    sleep(secs(100)).await;
    // One response of ten records is buffered, one batch of it is in the channel.
    assert_eq!(fake.times(RECORDS).len(), 1);
    run.expect(1..=12).await;
    sleep(secs(100)).await;
    assert_eq!(fake.times(RECORDS).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pause_stops_records_and_requests_once_something_waits() {
    let fake = Fake::new(1..=30);
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(1..=30).await;
    sleep(secs(1)).await;
    run.reader.pause();
    sleep(secs(1)).await;
    let asked = fake.times(RECORDS).len();
    run.expect_nothing(secs(100)).await;
    let in_pause = fake.times(RECORDS).len() - asked;
    assert!((50..=101).contains(&in_pause), "once a second: {in_pause}");
    fake.store(31..=40);
    run.expect_nothing(secs(10)).await;
    let asked = fake.times(RECORDS).len();
    run.expect_nothing(secs(100)).await;
    assert_eq!(fake.times(RECORDS).len(), asked);
    run.reader.resume();
    run.expect(31..=40).await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_at_the_tip_ends_at_once() {
    let fake = Fake::new(1..=3);
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(1..=3).await;
    run.reader.pause();
    run.expect_nothing(Duration::from_millis(10_600)).await;
    let resumed = Instant::now();
    fake.store(4..=4);
    run.reader.resume();
    run.expect(4..=4).await;
    assert!(resumed.elapsed() < Duration::from_millis(300));
}

/// Returns the lags that are reported from now on until one matches.
async fn lag_until(run: &mut Run, met: impl Fn(Duration) -> bool) -> Vec<Duration> {
    let mut told = Vec::new();
    loop {
        match run.said.recv().await {
            Some(((), ReadEvent::Behind(behind))) => told.push(behind),
            Some(((), ReadEvent::CaughtUp { .. })) => {}
            event => panic!("{event:?} after {told:?}"),
        }
        if told.last().is_some_and(|last| met(*last)) {
            return told;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_reader_tells_how_far_behind_it_is() {
    let begun = Instant::now();
    let fake = Fake::new(1..=30);
    let mut run = run(&fake, ResumePoint::Earliest);
    // Before its first request: the first response is buffered.
    run.reader.pause();
    lag_until(&mut run, |behind| behind >= secs(10)).await;
    assert!(begun.elapsed() < secs(13), "{:?}", begun.elapsed());
    run.reader.resume();
    run.expect(1..=30).await;
    // At the tip.
    sleep(secs(2)).await;
    run.reader.pause();
    sleep(secs(2)).await;
    let stored = Instant::now();
    fake.store(31..=31);
    let told = lag_until(&mut run, |behind| behind >= secs(10)).await;
    assert!(stored.elapsed() < secs(14), "{:?}", stored.elapsed());
    assert!(told.len() <= 15, "once a second: {told:?}");
    run.reader.resume();
    run.expect(31..=31).await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_reader_asks_no_more() {
    let fake = Fake::new(1..=30);
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(1..=3).await;
    drop(run.reader);
    while run.said.recv().await.is_some() {}
    let asked = fake.times(|_| true).len();
    sleep(secs(100)).await;
    assert_eq!(fake.times(|_| true).len(), asked);
}

#[tokio::test(start_paused = true)]
async fn tells_how_far_behind_it_is() {
    let fake = Fake::new(1..=12);
    let mut run = run(&fake, ResumePoint::After(position("12")));
    match run.said.recv().await {
        Some(((), ReadEvent::Behind(Duration::ZERO))) => {}
        event => panic!("{event:?}"),
    }
    fake.store(13..=13);
    match run.said.recv().await {
        Some(((), ReadEvent::Records { behind, .. })) => assert_eq!(behind, Some(Duration::ZERO)),
        event => panic!("{event:?}"),
    }
}
