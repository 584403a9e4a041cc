//! Groups that get a second stream, and lose it again, with `leases.keys = "auto"`.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_core::{Epoch, ErrorKind, Start};
use tokio::join;
use tokio::time::timeout;

use crate::config::LeaseKeys;
use crate::lease::key::LeaseKey;
use crate::lease::options::{LeaseEvent, ResumePoint, WorkerOptions};
use crate::lease::reset::Reset;
use crate::lease::row::names;
use crate::lease::row::new::string;
use crate::lease::testing::rig::{self, F, Rig, app, until};
use crate::lease::testing::source::id;
use crate::lease::worker::Worker;

const SECOND: Duration = Duration::from_secs(1);

/// Returns a table for the streams `s` and `t`.
fn table(shards: usize) -> Rig {
    let rig = Rig::new(shards);
    rig.source.create("t", 1);
    rig
}

fn options(rig: &Rig, id: &str, streams: &[&str]) -> WorkerOptions {
    let mut options = rig.options(id);
    options.keys = LeaseKeys::Auto;
    let described = streams.iter().map(|name| rig.source.described(name));
    options.streams = described.collect();
    options
}

/// Leases by stream, each with its epoch and where it begins.
type Taken = BTreeMap<String, (LeaseKey, Epoch, ResumePoint)>;

/// Waits until a member has taken so many leases.
async fn taken(worker: &Worker, count: usize) -> Taken {
    let mut taken = Taken::new();
    while taken.len() < count {
        match timeout(3 * F, worker.next()).await {
            Ok(LeaseEvent::Taken {
                lease, epoch, from, ..
            }) => taken.insert(lease.stream.to_string(), (lease, epoch, from)),
            event => panic!("not taken: {event:?}"),
        };
    }
    taken
}

/// Joins, notes where each stream begins, stores a position in each, and leaves.
async fn session(rig: &Rig, streams: &[&str], position: u64) -> BTreeMap<String, ResumePoint> {
    let worker = rig::join(options(rig, &format!("m{position}"), streams)).await;
    let worker = worker.unwrap();
    let mut begun = BTreeMap::new();
    for (stream, (lease, epoch, from)) in taken(&worker, streams.len()).await {
        let stored = worker.checkpoint(&lease, epoch, position.into());
        stored.await.unwrap();
        begun.insert(stream, from);
    }
    worker.leave().await.unwrap();
    begun
}

fn begun<const N: usize>(streams: [(&str, ResumePoint); N]) -> BTreeMap<String, ResumePoint> {
    streams.map(|(name, from)| (name.to_owned(), from)).into()
}

fn after(position: u64) -> ResumePoint {
    ResumePoint::After(position.into())
}

async fn refused(rig: &Rig, streams: &[&str]) -> String {
    let before = rig.store.rows();
    let error = rig::join(options(rig, "x", streams)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(rig.store.rows(), before, "a refused member changes nothing");
    error.message().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_second_stream_comes_and_goes_and_nothing_is_lost() {
    let rig = table(1);
    let earliest = ResumePoint::Earliest;
    let first = session(&rig, &["s"], 10).await;
    assert_eq!(first, begun([("s", earliest.clone())]));
    let both = session(&rig, &["s", "t"], 20).await;
    assert_eq!(both, begun([("s", after(10)), ("t", earliest)]));
    let back = session(&rig, &["s"], 30).await;
    assert_eq!(back, begun([("s", after(20))]));
    let other = session(&rig, &["t"], 40).await;
    assert_eq!(other, begun([("t", after(20))]));
    let again = session(&rig, &["t", "s"], 50).await;
    assert_eq!(again, begun([("s", after(30)), ("t", after(40))]));
    assert_eq!(rig.store.rows().len(), 2, "no lease was made twice");
}

#[tokio::test(start_paused = true)]
async fn a_group_of_two_streams_loses_one_and_gets_it_again() {
    let rig = table(1);
    session(&rig, &["s", "t"], 10).await;
    assert!(rig.store.rows().iter().all(|row| row.key.contains(':')));
    let one = session(&rig, &["s"], 20).await;
    assert_eq!(one, begun([("s", after(10))]));
    let both = session(&rig, &["s", "t"], 30).await;
    assert_eq!(both, begun([("s", after(20)), ("t", after(10))]));
    assert_eq!(rig.store.rows().len(), 2, "no lease was made twice");
}

#[tokio::test(start_paused = true)]
async fn members_with_and_without_the_second_stream_run_together() {
    let rig = table(3);
    let old = app(options(&rig, "a", &["s"])).await;
    until(SECOND, || old.count() == 3).await;
    for shard in 0..3 {
        old.checkpoint(shard, 10).await.unwrap();
    }
    let new = rig::join(options(&rig, "b", &["s", "t"])).await.unwrap();
    let got = taken(&new, 2).await;
    assert_eq!(got["s"].2, after(10));
    assert_eq!(got["t"].2, ResumePoint::Earliest);
    assert_eq!(old.count(), 2);
    // A deploy that is rolled back: members with one stream start, and the others go.
    let again = rig::join(options(&rig, "c", &["s"])).await.unwrap();
    new.leave().await.unwrap();
    again.leave().await.unwrap();
    until(3 * F, || old.count() == 3).await;
    assert!(!old.log().iter().any(|what| what.starts_with("failed")));
    let both = session(&rig, &["t"], 20).await;
    assert_eq!(both, begun([("t", ResumePoint::Earliest)]));
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_the_second_stream_leaves_the_first() {
    let rig = table(1);
    session(&rig, &["s"], 10).await;
    session(&rig, &["s", "t"], 20).await;
    let reset = Reset {
        store: &rig.store,
        source: &rig.source,
        keys: LeaseKeys::Auto,
        failover: F,
        drain: F,
    };
    reset.run("t", Start::Earliest).await.unwrap();
    let both = session(&rig, &["s", "t"], 30).await;
    let expected = [("s", after(20)), ("t", ResumePoint::Earliest)];
    assert_eq!(both, begun(expected));
}

#[tokio::test(start_paused = true)]
async fn leases_that_show_no_stream_are_not_guessed() {
    let rig = table(1);
    session(&rig, &["s"], 10).await;
    let mut item = rig.store.item(&id(0)).unwrap();
    item.retain(|name, _| !name.starts_with("millstream"));
    rig.store.put(item);
    let message = refused(&rig, &["s", "t"]).await;
    assert!(message.contains("alone first"), "{message}");
    // As the message says.
    let alone = session(&rig, &["s"], 20).await;
    assert_eq!(alone, begun([("s", after(10))]));
    let both = session(&rig, &["s", "t"], 30).await;
    assert_eq!(both["s"], after(20));
}

#[tokio::test(start_paused = true)]
async fn a_second_stream_waits_until_no_java_worker_has_a_lease() {
    let rig = table(1);
    session(&rig, &["s"], 10).await;
    let mut item = rig.store.item(&id(0)).unwrap();
    item.insert(names::OWNER.into(), string("java"));
    rig.store.put(item);
    let message = refused(&rig, &["s", "t"]).await;
    assert!(message.contains("Java worker"), "{message}");
    session(&rig, &["s"], 20).await;
    let both = session(&rig, &["s", "t"], 30).await;
    assert_eq!(both["s"], after(20));
}

#[tokio::test(start_paused = true)]
async fn leases_of_two_formats_for_one_stream_are_refused() {
    let rig = table(1);
    session(&rig, &["s"], 10).await;
    let mut item = rig.store.item(&id(0)).unwrap();
    let key = format!("000000000000:s:1700000000:{}", id(0));
    item.insert(names::KEY.into(), string(&key));
    rig.store.put(item);
    let message = refused(&rig, &["s"]).await;
    assert!(message.contains(&key), "{message}");
}

#[tokio::test(start_paused = true)]
async fn first_members_with_different_streams_do_not_read_one_of_them_twice() {
    let rig = table(1);
    let (one, both) = join!(
        rig::join(options(&rig, "a", &["s"])),
        rig::join(options(&rig, "b", &["s", "t"]))
    );
    let is_of_s = |key: &str| !key.contains(":t:");
    let leases = rig.store.rows().into_iter();
    let leases = leases.filter(|row| is_of_s(&row.key)).count();
    let joined = [one.is_ok(), both.is_ok()];
    assert!(leases == 1 || joined != [true, true], "{leases} {joined:?}");
}

#[tokio::test(start_paused = true)]
async fn a_first_stream_that_was_made_again_is_refused() {
    let rig = table(1);
    session(&rig, &["s"], 10).await;
    rig.source.create("s", 1);
    let message = refused(&rig, &["s", "t"]).await;
    assert!(message.contains("deleted since"), "{message}");
}
