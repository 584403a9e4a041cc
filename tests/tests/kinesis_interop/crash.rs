//! One side is killed, and the other goes on where it was.

use std::time::Duration;

use conformance::kinesis::told::{Event, Told};
use millstream_kinesis::Aggregation;

use crate::ground::{Ground, SESSION};
use crate::member::{Member, Side};

pub(crate) async fn kill(ground: Ground, side: Side) {
    ground.create_leases().await;
    let dies = Member::start(&ground, side, "dies").await;
    let flow = ground.flow(Aggregation::Off).await;
    let lives = Member::start(&ground, side.other(), "lives").await;
    ground.balanced(&["dies", "lives"]).await;
    ground.at_work("dies").await;

    let (held, at) = (ground.held_by("dies").await, now());
    dies.kill().await;
    let took = taken_over(&ground, "dies", &held, at).await;
    let summary = ground.judge(&flow.stop().await).await;
    ground.print(&format!(
        "{side:?} was killed, taken over after {took:.1?}: {summary}"
    ));
    assert!(summary.handovers >= held.len() as u64);
    if side == Side::Java {
        // The library looks at the table every other session, so that it takes up to three.
        assert!(took < SESSION * 2, "it took {took:?}");
    }
    lives.stop().await;
}

pub(crate) fn now() -> u64 {
    Told::now(Event::Started).at
}

/// Waits until others handle records of all these shards, and tells how long after `at` the last of them
/// was begun with.
pub(crate) async fn taken_over(
    ground: &Ground,
    member: &str,
    shards: &[String],
    at: u64,
) -> Duration {
    let last = ground.until("others have taken over", || async {
        let begun = ground.log.begun_by_others(member, at);
        let begun = shards.iter().map(|shard| begun.get(shard).copied());
        begun.collect::<Option<Vec<u64>>>()?.into_iter().max()
    });
    Duration::from_micros(last.await - at)
}
