//! One side is killed, and the other continues where it was.

use std::time::Duration;

use conformance::kinesis::consumer_events::{Event, TimedEvent};
use millstream_kinesis::Aggregation;

use crate::fixture::{Fixture, SESSION};
use crate::member::{Member, Side};

pub(crate) async fn kill(fixture: Fixture, side: Side) {
    fixture.create_leases().await;
    let dies = Member::start(&fixture, side, "dies").await;
    let background_load = fixture.send_in_background(Aggregation::Off).await;
    let lives = Member::start(&fixture, side.other(), "lives").await;
    fixture.balanced(&["dies", "lives"]).await;
    fixture.at_work("dies").await;

    let (held, at) = (fixture.held_by("dies").await, now());
    dies.kill().await;
    let took = taken_over(&fixture, "dies", &held, at).await;
    let summary = fixture.check(&background_load.stop().await).await;
    fixture.print(&format!(
        "{side:?} was killed, taken over after {took:.1?}: {summary}"
    ));
    assert!(summary.handovers >= held.len() as u64);
    if side == Side::Java {
        // The library scans the table every two sessions, so a takeover takes up to three.
        assert!(took < SESSION * 2, "it took {took:?}");
    }
    lives.stop().await;
}

pub(crate) fn now() -> u64 {
    TimedEvent::now(Event::Started).at
}

/// Waits until other members handle records of all these shards, and returns how long after `at` the last shard
/// was taken over.
pub(crate) async fn taken_over(
    fixture: &Fixture,
    member: &str,
    shards: &[String],
    at: u64,
) -> Duration {
    let last = fixture.until("others have taken over", || async {
        let begun = fixture.log.begun_by_others(member, at);
        let begun = shards.iter().map(|shard| begun.get(shard).copied());
        begun.collect::<Option<Vec<u64>>>()?.into_iter().max()
    });
    Duration::from_micros(last.await - at)
}
