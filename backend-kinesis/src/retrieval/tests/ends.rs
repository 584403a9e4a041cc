//! Shard end.

use millstream_core::ErrorKind;

use super::super::{ReadEvent, ResumePoint, RetrievalMode};
use super::fake::{Fake, child};
use super::registry::fan_out;
use super::{Run, position, run, run_in, secs};

async fn expect_end(run: &mut Run, children: &[&str]) {
    match run.next().await {
        ReadEvent::Ended { children: found } => {
            let ids: Vec<_> = found.iter().map(|shard| &*shard.id).collect();
            assert_eq!(ids, children);
        }
        event => panic!("{event:?}"),
    }
    assert!(run.said.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn ends_after_the_last_record() {
    let fake = Fake::new(1..=25);
    fake.close(&["shard-2", "shard-3"]);
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(1..=25).await;
    expect_end(&mut run, &["shard-2", "shard-3"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_end_without_children_is_none() {
    let fake = Fake::new(1..=25);
    fake.lock().closed = true;
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(1..=25).await;
    run.expect_nothing(secs(60)).await;
    // The reported end was wrong.
    fake.lock().closed = false;
    fake.store(26..=30);
    run.expect(26..=30).await;
    fake.close(&["shard-2"]);
    expect_end(&mut run, &["shard-2"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_went_by_retention_is_a_gap_and_an_end() {
    let fake = Fake::new(1..=25);
    fake.close(&["shard-2"]);
    fake.lock().listed = false;
    let mut run = run(&fake, ResumePoint::After(position("7")));
    match run.next().await {
        ReadEvent::DataLoss { after, earliest } => {
            assert_eq!((after, earliest), (Some(position("7")), position("10000")));
        }
        event => panic!("{event:?}"),
    }
    expect_end(&mut run, &["shard-2"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_removed_while_it_is_read_is_a_gap_and_an_end() {
    for mode in [RetrievalMode::Polling, fan_out()] {
        let fake = Fake::new(1..=100);
        fake.close(&["shard-2"]);
        fake.lock().age = secs(25 * 3_600);
        let mut run = run_in(mode, &fake, ResumePoint::Earliest);
        run.expect(1..=3).await;
        fake.lock().listed = false;
        let mut last = None;
        let lost = loop {
            match run.next().await {
                ReadEvent::Records { records, .. } => last = records.last().map(|r| r.position),
                ReadEvent::DataLoss { after, earliest } => break (after, earliest),
                event => panic!("{event:?}"),
            }
        };
        assert_eq!(lost, (last, position("10000")));
        expect_end(&mut run, &["shard-2"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_shard_without_a_record_left_is_a_gap_and_an_end() {
    let fake = Fake::new(1..=25);
    fake.close(&["shard-2"]);
    fake.lock().trimmed = 25;
    let mut run = run(&fake, ResumePoint::After(position("7")));
    assert!(matches!(run.next().await, ReadEvent::DataLoss { .. }));
    expect_end(&mut run, &["shard-2"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_ended_at_its_last_record_has_no_gap() {
    let fake = Fake::new(1..=25);
    fake.close(&["shard-2"]);
    let mut run = run(&fake, ResumePoint::After(position("25")));
    expect_end(&mut run, &["shard-2"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_not_listed_yet_is_read() {
    let fake = Fake::new(1..=3);
    fake.lock().listed = false;
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect_nothing(secs(1)).await;
    fake.lock().listed = true;
    run.expect(1..=3).await;
}

#[tokio::test(start_paused = true)]
async fn other_shards_are_no_children() {
    let fake = Fake::new(1..=3);
    fake.lock().closed = true;
    fake.lock().children = vec![child("shard-2", &["shard-7"])];
    fake.lock().iterator_faults = [ErrorKind::Unavailable].into();
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect(1..=3).await;
    run.expect_nothing(secs(30)).await;
    fake.lock().children = vec![child("shard-2", &["shard-7", "shard-1"])];
    expect_end(&mut run, &["shard-2"]).await;
}
