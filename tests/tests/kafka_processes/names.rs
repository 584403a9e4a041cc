//! Static membership: members that restart under the same name within their session.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conformance::checker::Summary;
use conformance::fleet::{BackgroundLoad, Fleet};
use conformance::history::Event;
use conformance::kafka::Options;
use millstream_core::{Epoch, Partition};
use millstream_kafka::Protocol;

use crate::fixture::{Fixture, all_handling, begun, owners};
use crate::process::Process;

/// Longer than a process takes to start, on a machine that is busy with other work.
const SESSION: Duration = Duration::from_secs(10);

/// Added to the session timeout: a newcomer must retry, be admitted and begin.
const MARGIN: Duration = Duration::from_secs(15);

const PAUSE: Duration = Duration::from_millis(4);
const KEYS: usize = 24;
const PARTITIONS: usize = 6;

/// One broker for all, because it has special session settings.
pub(crate) async fn names(protocol: Protocol) {
    let session = SESSION.as_millis().to_string();
    let broker = Options::new()
        .property("group.consumer.session.timeout.ms", &session)
        .start()
        .await;
    let fixture = Fixture::new(broker.bootstrap(), protocol);
    restarted(&fixture).await;
    killed(&fixture, protocol).await;
    taken(&fixture).await;
}

/// Two working members with names.
struct Pair {
    fleet: Fleet,
    background_load: BackgroundLoad,
    a: Process,
    b: Process,
    /// The share of `a`.
    share: BTreeSet<(Partition, Epoch)>,
}

fn start(fixture: &Fixture, fleet: &Fleet, member: &str, name: &str) -> Process {
    let mut member_config = fixture.member_config(fleet, member);
    member_config.config.consumer.session_timeout = SESSION;
    member_config.config.consumer.instance_id = Some(name.to_owned());
    Process::start(&member_config, &fleet.history)
}

/// Returns the partitions that it was the last to handle, with its epochs.
fn share(fleet: &Fleet, member: &str) -> BTreeSet<(Partition, Epoch)> {
    let last = owners(fleet).into_iter();
    let own = last.filter(|last| *last.by.member == *member);
    own.map(|last| (last.by.partition, last.by.epoch)).collect()
}

fn partitions(share: &BTreeSet<(Partition, Epoch)>) -> BTreeSet<&Partition> {
    share.iter().map(|(partition, _)| partition).collect()
}

async fn pair(fixture: &Arc<Fixture>) -> Pair {
    let fleet = fixture.fleet(PARTITIONS).await;
    let background_load = fleet.test_producer().await.send_in_background(KEYS, PAUSE);
    let a = start(fixture, &fleet, "a", "one");
    let b = start(fixture, &fleet, "b", "two");
    all_handling(&fleet, &[&a, &b]).await;
    fleet
        .until("each has its half", || {
            ["a", "b"].map(|member| share(&fleet, member).len()) == [PARTITIONS / 2; 2]
        })
        .await;
    let share = share(&fleet, "a");
    Pair {
        fleet,
        background_load,
        a,
        b,
        share,
    }
}

/// Waits until a newcomer has begun with as many partitions as its predecessor had.
async fn comes_back(fleet: &Fleet, member: &str) -> Duration {
    let since = Instant::now();
    fleet
        .until("the name has its share again", || {
            share(fleet, member).len() == PARTITIONS / 2
        })
        .await;
    since.elapsed()
}

/// Checks the run: nothing is lost or out of order, and no epoch has two owners.
async fn end(fleet: &Fleet, background_load: BackgroundLoad, members: [Process; 2]) -> Summary {
    background_load.stop().await;
    let summary = fleet.check().await;
    for member in members {
        member.close().await;
    }
    summary
}

/// A member that closes keeps its partitions for the next one of its name; the other member is not
/// involved, and nothing is handled twice.
async fn restarted(fixture: &Arc<Fixture>) {
    let Pair {
        fleet,
        background_load,
        a,
        b,
        share: had,
    } = pair(fixture).await;
    let others = share(&fleet, "b");
    a.close().await;
    let a = start(fixture, &fleet, "a-2", "one");
    let took = comes_back(&fleet, "a-2").await;
    let has = share(&fleet, "a-2");
    assert_eq!(partitions(&has), partitions(&had));
    assert_eq!(
        share(&fleet, "b"),
        others,
        "the other one continues as it was"
    );
    let older = had.iter().map(|(_, epoch)| epoch).max();
    let newer = has.iter().map(|(_, epoch)| epoch).min();
    assert!(older < newer, "{had:?}, and then {has:?}");
    let summary = end(&fleet, background_load, [a, b]).await;
    println!("restarted by name: back after {took:?}: {summary:?}");
    assert_eq!(summary.duplicates, 0);
}

/// The next member with the name of a killed process is admitted, again and again, and nothing is lost.
async fn killed(fixture: &Arc<Fixture>, protocol: Protocol) {
    let Pair {
        fleet,
        background_load,
        a,
        b,
        share: had,
    } = pair(fixture).await;
    a.kill().await;
    let a = start(fixture, &fleet, "a-2", "one");
    let first = comes_back(&fleet, "a-2").await;
    if protocol == Protocol::Cooperative {
        // The newcomer takes the place of the old member at once.
        assert_eq!(partitions(&share(&fleet, "a-2")), partitions(&had));
    }
    a.kill().await;
    let a = start(fixture, &fleet, "a-3", "one");
    let second = comes_back(&fleet, "a-3").await;
    let summary = end(&fleet, background_load, [a, b]).await;
    println!("killed by name: back after {first:?} and {second:?}: {summary:?}");
    assert!(first.max(second) < SESSION + MARGIN);
}

/// A frozen member whose name is taken by another one learns of that when it continues, and ends: a name has
/// only one member.
async fn taken(fixture: &Arc<Fixture>) {
    let Pair {
        fleet,
        background_load,
        a,
        b,
        ..
    } = pair(fixture).await;
    a.freeze();
    let newcomer = start(fixture, &fleet, "a-2", "one");
    let took = comes_back(&fleet, "a-2").await;
    let so_far = begun(&fleet, "a-2");
    a.thaw();
    let reported = |event: &Event| matches!(event, Event::Lost(by) if *by.member == *"a");
    fleet
        .until("it learns of it", || fleet.history.count(reported) > 0)
        .await;
    fleet
        .until("the newcomer continues", || {
            begun(&fleet, "a-2") >= so_far + 100
        })
        .await;
    a.ended(SESSION + MARGIN).await;
    let summary = end(&fleet, background_load, [newcomer, b]).await;
    println!("taken by name: back after {took:?}: {summary:?}");
}
