//! Members that are killed, frozen and restarted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conformance::checker::Rules;
use conformance::fleet::Fleet;
use conformance::history::Event;
use millstream_core::Partition;

use crate::fixture::{Fixture, SESSION, all_handling, begun, owners};
use crate::process::Process;

/// Added to the session timeout: the broker must detect the loss, and the others must be assigned and begin, on a
/// machine that is busy with other work.
const MARGIN: Duration = Duration::from_secs(4);

/// A steady load, which sends a record to each partition every few milliseconds.
const PAUSE: Duration = Duration::from_millis(4);
const KEYS: usize = 24;
const PARTITIONS: usize = 6;

fn partitions_of(fleet: &Fleet, member: &str) -> BTreeSet<Partition> {
    let last = owners(fleet).into_iter();
    let own = last.filter(|last| *last.by.member == *member);
    own.map(|last| last.by.partition).collect()
}

/// Waits until others have begun with all partitions of a member, and returns how long that took.
async fn taken_over(fleet: &Fleet, member: &str) -> Duration {
    let since = Instant::now();
    fleet
        .until("the others take over", || {
            partitions_of(fleet, member).is_empty()
        })
        .await;
    since.elapsed()
}

async fn three(fixture: &Fixture, fleet: &Fleet) -> [Process; 3] {
    let members = ["a", "b", "c"].map(|name| fixture.start(fleet, name));
    all_handling(fleet, &members.each_ref()).await;
    members
}

/// Records that a killed member had not checkpointed are delivered again, and no others.
pub(crate) async fn kill(fixture: Arc<Fixture>) {
    const EVERY: u64 = 20;
    let fleet = fixture.fleet(PARTITIONS).await;
    let background_load = fleet.test_producer().await.send_in_background(KEYS, PAUSE);
    let members = ["a", "b", "c"].map(|name| {
        let mut member_config = fixture.member_config(&fleet, name);
        member_config.checkpoint_records = Some(EVERY);
        Process::start(&member_config, &fleet.history)
    });
    all_handling(&fleet, &members.each_ref()).await;
    let [a, b, c] = members;
    let so_far = begun(&fleet, "a");
    fleet
        .until("it is at work", || begun(&fleet, "a") >= so_far + 100)
        .await;
    a.kill().await;
    let took = taken_over(&fleet, "a").await;
    background_load.stop().await;
    // Records that are settled while a checkpoint is in flight add to the repeats, and so do settled records
    // after an open one.
    let most_repeats = Some(2 * EVERY + 16);
    let summary = fleet.check_with(Rules { most_repeats }).await;
    println!("killed: taken over after {took:?}: {summary:?}");
    assert!(took < SESSION + MARGIN, "the takeover took {took:?}");
    assert_eq!(summary.crashes, 1);
    b.close().await;
    c.close().await;
}

/// A member that is frozen for longer than its session, and then continues where it was, learns of its loss, and
/// can store no checkpoint of its records.
pub(crate) async fn zombie(fixture: Arc<Fixture>) {
    let fleet = fixture.fleet(PARTITIONS).await;
    let background_load = fleet.test_producer().await.send_in_background(KEYS, PAUSE);
    let [a, b, c] = three(&fixture, &fleet).await;
    a.freeze();
    let took = taken_over(&fleet, "a").await;
    let others = begun(&fleet, "b") + begun(&fleet, "c");
    fleet
        .until("the others continue", || {
            begun(&fleet, "b") + begun(&fleet, "c") >= others + 300
        })
        .await;
    a.thaw();
    let reported = |event: &Event| matches!(event, Event::Lost(by) if *by.member == *"a");
    fleet
        .until("it learns of it", || fleet.history.count(reported) > 0)
        .await;
    fleet
        .until("it works again", || !partitions_of(&fleet, "a").is_empty())
        .await;
    background_load.stop().await;
    let summary = fleet.check().await;
    println!("stopped: taken over after {took:?}: {summary:?}");
    assert!(took < SESSION + MARGIN, "the takeover took {took:?}");
    for member in [a, b, c] {
        member.close().await;
    }
}

/// One member after the other is replaced, under load, and nothing is handled twice.
pub(crate) async fn rolling_restart(fixture: Arc<Fixture>) {
    let fleet = fixture.fleet(PARTITIONS).await;
    let background_load = fleet.test_producer().await.send_in_background(KEYS, PAUSE);
    let mut members = Vec::from(three(&fixture, &fleet).await);
    for name in ["a-2", "b-2", "c-2"] {
        members.remove(0).close().await;
        members.push(fixture.start(&fleet, name));
        all_handling(&fleet, &members.iter().collect::<Vec<_>>()).await;
    }
    background_load.stop().await;
    let summary = fleet.check().await;
    println!("rolling restart: {summary:?}");
    assert_eq!(summary.duplicates, 0);
    assert!(summary.handovers >= 3, "{summary:?}");
    for member in members {
        member.close().await;
    }
}
