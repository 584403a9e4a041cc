//! Enhanced fan-out.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::ErrorKind;
use tokio::time::{Instant, sleep};

use super::super::source::StartingPosition;
use super::super::{ReadEvent, ResumePoint, Settings};
use super::fake::{End, Fake, Request, iterator};
use super::registry::fan_out;
use super::{ago, latest, position, run_in_fan_out, run_with, secs, settings};

const SUBSCRIBE: fn(&Request) -> bool = |request| matches!(request, Request::Subscribe(_));
const POLL: fn(&Request) -> bool = |request| *request == Request::Records;
const LIST: fn(&Request) -> bool = |request| *request == Request::Shards;

#[tokio::test(start_paused = true)]
async fn records_are_pushed() {
    let fake = Fake::new(1..=20);
    let mut run = run_in_fan_out(&fake, ResumePoint::Earliest);
    run.expect(1..=20).await;
    let begun = Instant::now();
    fake.store(21..=22);
    run.expect(21..=22).await;
    assert!(begun.elapsed() < Duration::from_millis(100));
    assert!(fake.times(POLL).is_empty());
}

#[tokio::test(start_paused = true)]
async fn subscriptions_follow_on_one_another() {
    let fake = Fake::new([]);
    let mut run = run_in_fan_out(&fake, ResumePoint::Earliest);
    for number in 1..=1_000 {
        fake.store([number]);
        run.expect([number]).await;
        sleep(secs(1)).await;
    }
    // The first one is replaced after 1 to 5 minutes, and the others after 5.
    let begun = fake.times(SUBSCRIBE);
    assert!(matches!(begun.len(), 4 | 5), "{begun:?}");
    assert!(begun[1] - begun[0] >= secs(60), "{begun:?}");
    assert!(begun[2] - begun[1] >= secs(299), "{begun:?}");
    assert!(matches!(fake.positions()[1], StartingPosition::After(_)));
}

#[tokio::test(start_paused = true)]
async fn subscriptions_that_begin_together_are_not_renewed_together() {
    let fakes: Vec<_> = (0..64).map(|_| Fake::new([])).collect();
    let runs = fakes
        .iter()
        .map(|fake| run_in_fan_out(fake, ResumePoint::Earliest));
    let runs: Vec<_> = runs.collect();
    sleep(secs(310)).await;
    drop(runs);
    let second = fakes.iter().map(|fake| fake.times(SUBSCRIBE)[1]);
    let mut second: Vec<_> = second.collect();
    second.sort_unstable();
    let most = second
        .iter()
        .map(|at| {
            second
                .iter()
                .filter(|other| **other >= *at && **other < *at + secs(1))
                .count()
        })
        .max();
    // 64 in 4 minutes.
    assert!(most <= Some(8), "{most:?} in one second");
}

#[tokio::test(start_paused = true)]
async fn resumes_after_the_last_record_and_tells_a_gap() {
    let fake = Fake::new(1..=20);
    let mut first = run_in_fan_out(&fake, ResumePoint::After(position("15")));
    first.expect(16..=20).await;
    fake.lock().trimmed = 10;
    let mut other = run_in_fan_out(&fake, ResumePoint::After(position("5")));
    match other.next().await {
        ReadEvent::DataLoss { after, earliest } => {
            assert_eq!((after, earliest), (Some(position("5")), position("11")));
        }
        event => panic!("{event:?}"),
    }
    other.expect(11..=20).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_far_behind_keeps_its_subscription_and_confirms_it_once_a_second() {
    let fake = Fake::new(1..=1_000);
    fake.lock().age = secs(30 * 3_600);
    let mut run = run_in_fan_out(&fake, ResumePoint::After(position("1")));
    run.expect(2..=1_000).await;
    assert_eq!(fake.times(SUBSCRIBE).len(), 1);
    let confirmed = fake.times(|request| matches!(request, Request::Iterator(_)));
    assert!(!confirmed.is_empty());
    let gaps = confirmed.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.into_iter().all(|gap| gap >= secs(1)));
}

#[tokio::test(start_paused = true)]
async fn a_pinned_iterator_is_polled_for_the_first_record() {
    let fake = Fake::new(1..=20);
    let mut run = run_in_fan_out(&fake, latest(iterator(20), ago(1)));
    run.expect_nothing(secs(200)).await;
    fake.store(21..=25);
    run.expect(21..=25).await;
    fake.store(26..=30);
    run.expect(26..=30).await;
    assert_eq!(
        fake.positions(),
        [StartingPosition::At(position("25.18446744073709551615"))]
    );
}

/// Returns a shard with 20 records that were stored before an iterator was pinned at its tip, that long ago.
fn pinned(age: u64) -> (Arc<Fake>, ResumePoint) {
    let fake = Fake::new(1..=20);
    for raw in &mut fake.lock().records {
        raw.arrival = Some(ago(age));
    }
    (fake, latest(iterator(20), ago(age)))
}

#[tokio::test(start_paused = true)]
async fn a_quiet_shard_is_not_polled_until_its_first_record() {
    let (fake, begin) = pinned(11);
    let mut run = run_in_fan_out(&fake, begin);
    run.expect_nothing(secs(1_000)).await;
    let polls = fake.times(POLL).len();
    assert!(polls <= 2, "a quiet shard was polled {polls} times");
    assert!(
        matches!(fake.positions()[0], StartingPosition::Time(_)),
        "it is subscribed to by time"
    );
    fake.store(21..=25);
    run.expect(21..=25).await;
    fake.store(26..=30);
    run.expect(26..=30).await;
    assert_eq!(fake.times(POLL).len(), polls, "everything else is pushed");
}

#[tokio::test(start_paused = true)]
async fn nothing_between_a_pin_and_the_first_subscription_is_lost_or_repeated() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (fake, begin) = pinned(rng.u64(10..15));
        let mut stored = 20 + rng.u64(0..3);
        fake.store(21..=stored);
        {
            let mut inner = fake.lock();
            inner.takes = Duration::from_millis(rng.u64(1..2_000));
            inner.empty_answers = rng.usize(0..4);
            let faults = [ErrorKind::Unavailable, ErrorKind::Throttled];
            let some = |rng: &mut fastrand::Rng| faults.into_iter().take(rng.usize(0..3)).collect();
            inner.records_faults = some(&mut rng);
            inner.subscribe_faults = some(&mut rng);
            inner.push_faults = some(&mut rng);
        }
        let mut run = run_in_fan_out(&fake, begin);
        for _ in 0..rng.usize(0..4) {
            sleep(Duration::from_millis(rng.u64(0..4_000))).await;
            let more = rng.u64(0..3);
            fake.store(stored + 1..=stored + more);
            stored += more;
        }
        run.expect(21..=stored).await;
        run.expect_nothing(secs(600)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_without_a_record_of_a_time_repeats_no_earlier_ones() {
    let (fake, begin) = pinned(11);
    {
        let mut inner = fake.lock();
        inner.is_lost_in_time = true;
        inner.page = 7;
    }
    let mut run = run_in_fan_out(&fake, begin);
    run.expect_nothing(secs(1_000)).await;
    fake.store(21..=45);
    run.expect(21..=45).await;
}

#[tokio::test(start_paused = true)]
async fn a_first_subscription_that_is_refused_by_its_time_reads_no_earlier_records() {
    let (fake, begin) = pinned(11);
    // The clock is far ahead of that of Kinesis.
    fake.lock().subscribe_faults = [ErrorKind::Invalid].into();
    let mut run = run_in_fan_out(&fake, begin);
    run.expect_nothing(secs(100)).await;
    fake.store(21..=25);
    run.expect(21..=25).await;
    assert!(
        !fake.positions().contains(&StartingPosition::Earliest),
        "{:?}",
        fake.positions()
    );
}

#[tokio::test(start_paused = true)]
async fn silence_is_not_waited_out() {
    let fake = Fake::new(1..=5);
    let mut run = run_in_fan_out(&fake, ResumePoint::Earliest);
    run.expect(1..=5).await;
    fake.lock().silent = true;
    run.expect_nothing(secs(100)).await;
    let gaps: Vec<_> = fake.times(SUBSCRIBE);
    assert_eq!(gaps.len(), 3);
    fake.store(6..=9);
    run.expect(6..=9).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_under_way_is_waited_for() {
    let fake = Fake::new(1..=5);
    fake.lock().subscribe_faults = [ErrorKind::Unavailable; 5].into();
    let mut run = run_in_fan_out(&fake, ResumePoint::Earliest);
    run.expect(1..=5).await;
    let times = fake.times(SUBSCRIBE);
    assert_eq!(times.len(), 6);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= secs(1)));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_breaks_off_is_no_gap_and_no_repetition() {
    let fake = Fake::new(1..=100);
    let faults = [
        ErrorKind::Unavailable,
        ErrorKind::Throttled,
        ErrorKind::Timeout,
    ];
    let mut run = run_in_fan_out(&fake, ResumePoint::Earliest);
    for begin in (0..100).step_by(10) {
        fake.lock().push_faults = faults.into();
        run.expect(begin + 1..=begin + 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_number_that_is_refused_is_replaced_by_the_last_record() {
    let fake = Fake::new(1..=5);
    let mut run = run_in_fan_out(&fake, ResumePoint::Earliest);
    run.expect(1..=5).await;
    {
        let mut inner = fake.lock();
        inner.push_faults = [ErrorKind::Unavailable].into();
        inner.subscribe_faults = [ErrorKind::Invalid].into();
    }
    sleep(secs(5)).await;
    fake.store(6..=9);
    run.expect(6..=9).await;
    assert!(matches!(
        fake.positions()[1..],
        [StartingPosition::After(_), StartingPosition::At(_)]
    ));
}

#[tokio::test(start_paused = true)]
async fn ends_however_it_is_told() {
    for end in [End::NoNumber, End::NumberAndChildren, End::Never] {
        let fake = Fake::new(1..=25);
        fake.lock().end = end;
        let mut run = run_in_fan_out(&fake, ResumePoint::Earliest);
        run.expect(1..=25).await;
        fake.close(&["shard-2", "shard-3"]);
        match run.next().await {
            ReadEvent::Ended { children } => assert_eq!(children.len(), 2),
            event => panic!("{event:?}"),
        }
        assert_eq!(fake.times(POLL).is_empty(), end != End::Never);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_who_takes_outlives_a_subscription() {
    let fake = Fake::new(1..=50);
    let mut run = run_in_fan_out(&fake, ResumePoint::Earliest);
    run.expect(1..=3).await;
    sleep(secs(1_000)).await;
    run.expect(4..=40).await;
    run.reader.pause();
    sleep(secs(1_000)).await;
    run.reader.resume();
    run.expect(41..=50).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_gone_is_told() {
    let fake = Fake::new(1..=3);
    let mut run = run_in_fan_out(&fake, ResumePoint::Earliest);
    run.expect(1..=3).await;
    fake.lock().deleted = true;
    match run.next().await {
        ReadEvent::Failed(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
        event => panic!("{event:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn quiet_shards_are_listed_once_for_all_readers_and_their_end_is_noticed() {
    let fake = Fake::new([]);
    fake.lock().end = End::Never;
    let mode = fan_out();
    let mut runs: Vec<_> = (0..20)
        .map(|_| {
            let settings = Settings {
                mode: mode.clone(),
                ..settings(ResumePoint::Earliest)
            };
            run_with(&fake, settings)
        })
        .collect();
    runs[0].expect_nothing(secs(1_000)).await;
    let lists = fake.times(LIST).len();
    assert!(lists <= 60, "20 readers listed the shards {lists} times");
    let closed = Instant::now();
    fake.close(&["shard-2"]);
    for run in &mut runs {
        match run.next().await {
            ReadEvent::Ended { children } => assert_eq!(children.len(), 1),
            event => panic!("{event:?}"),
        }
        // One interval, one event of a subscription, and the polls.
        let noticed = closed.elapsed();
        assert!(noticed <= secs(35 + 5 + 2), "noticed after {noticed:?}");
    }
}
