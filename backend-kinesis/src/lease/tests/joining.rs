//! The creation of a group, and tables that cannot be shared.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millstream_core::{ErrorKind, Start};
use tokio::time::{Instant, sleep, timeout};

use crate::config::LeaseKeys;
use crate::lease::options::{LeaseEvent, ResumePoint};
use crate::lease::row::new::{number, string};
use crate::lease::row::{Progress, names};
use crate::lease::testing::memory::{Call, Fault};
use crate::lease::testing::rig::{F, Rig, join, until};
use crate::lease::testing::source::id;

const SECOND: Duration = Duration::from_secs(1);

fn keys(rig: &Rig) -> Vec<Arc<str>> {
    rig.store.rows().into_iter().map(|row| row.key).collect()
}

async fn refused(rig: &Rig) -> millstream_core::Error {
    join(rig.options("x")).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn s32_the_first_leases_are_there_when_a_join_returns() {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(500);
    for (start, leases, progress) in [
        (Start::Earliest, vec![id(0), id(1)], Progress::TrimHorizon),
        (Start::At(time), vec![id(0), id(1)], Progress::AtTimestamp),
        (Start::Latest, vec![id(1), id(2), id(3)], Progress::Latest),
    ] {
        let rig = Rig::new(2);
        rig.source.split("s", 0);
        let mut options = rig.options("a");
        options.start = start;
        let worker = join(options).await.unwrap();
        assert_eq!(keys(&rig), leases, "{start:?}");
        assert!(rig.store.rows().iter().all(|row| row.progress == progress));
        drop(worker);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_noted_when_a_beginning_or_a_time_was_decided_on() {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(500);
    for start in [Start::Earliest, Start::At(time), Start::Latest] {
        let rig = Rig::new(1);
        let mut options = rig.options("a");
        options.start = start;
        let worker = join(options).await.unwrap();
        let row = rig.store.row(&id(0)).unwrap();
        assert_eq!(
            row.own.resolved.is_some(),
            start != Start::Latest,
            "{start:?}"
        );
        drop(worker);
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_to_come_is_the_tip() {
    let rig = Rig::new(1);
    let mut options = rig.options("a");
    options.start = Start::At(SystemTime::now() + Duration::from_secs(3_600));
    let worker = join(options).await.unwrap();
    let row = rig.store.row(&id(0)).unwrap();
    assert_eq!(row.progress, Progress::Latest);
    assert!(row.pin().is_some());
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn the_tip_is_pinned_before_a_join_returns_and_kept_until_a_checkpoint() {
    let rig = Rig::new(1);
    let mut options = rig.options("a");
    options.start = Start::Latest;
    let worker = join(options.clone()).await.unwrap();
    assert_eq!(rig.source.pins(), 1);
    let pin = rig.store.row(&id(0)).unwrap().pin().unwrap();
    let LeaseEvent::Taken { from, .. } = worker.next().await else {
        panic!("not taken");
    };
    assert_eq!(from, ResumePoint::Latest(pin.clone()));
    worker.leave().await.unwrap();
    options.id = "b".into();
    let worker = join(options).await.unwrap();
    let LeaseEvent::Taken {
        from, lease, epoch, ..
    } = worker.next().await
    else {
        panic!("not taken");
    };
    assert_eq!(from, ResumePoint::Latest(pin));
    worker.checkpoint(&lease, epoch, 9.into()).await.unwrap();
    assert_eq!(rig.store.row(&id(0)).unwrap().own.start, None);
    assert_eq!(rig.source.pins(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tip_that_a_java_worker_left_open_is_pinned_by_the_first_take() {
    let rig = Rig::new(1);
    join(rig.options("a")).await.unwrap().leave().await.unwrap();
    let mut item = rig.store.item(&id(0)).unwrap();
    item.insert(names::CHECKPOINT.into(), string("LATEST"));
    rig.store.put(item);
    let worker = join(rig.options("b")).await.unwrap();
    let LeaseEvent::Taken { from, .. } = worker.next().await else {
        panic!("not taken");
    };
    let pin = rig.store.row(&id(0)).unwrap().pin().unwrap();
    assert_eq!(from, ResumePoint::Latest(pin));
}

/// Without the ranges, records that an aggregate brought to the wrong child of a split would be handled there, too.
#[tokio::test(start_paused = true)]
async fn who_has_not_listed_a_child_knows_its_hash_keys() {
    let rig = Rig::new(1);
    let first = rig.app("a").await;
    until(SECOND, || first.count() == 1).await;
    let other = join(rig.options("b")).await.unwrap();
    let children = rig.source.split("s", 0);
    first.complete(0).await.unwrap();
    // Until then one member may have the children, and the other the parent's lease, which still exists.
    first.leave().await;
    for _ in 0..children.len() {
        let event = timeout(3 * F, other.next()).await;
        let Ok(LeaseEvent::Taken { lease, range, .. }) = event else {
            panic!("not taken: {event:?}");
        };
        let child = children.iter().find(|child| child.id == lease.shard);
        assert_eq!(range, Some(child.expect("it is one of them").range));
    }
}

#[tokio::test(start_paused = true)]
async fn rows_are_written_as_the_kcl_needs_them() {
    let rig = Rig::new(1);
    let worker = join(rig.options("a")).await.unwrap();
    let item = rig.store.item(&id(0)).unwrap();
    for (name, value) in [
        ("leaseKey", string("shardId-000000000000")),
        ("checkpoint", string("TRIM_HORIZON")),
        ("checkpointSubSequenceNumber", number(0)),
        ("ownerSwitchesSinceCheckpoint", number(0)),
        ("startingHashKey", string("0")),
        ("endingHashKey", string(&u128::MAX.to_string())),
        ("entityType", string("LEASE")),
    ] {
        assert_eq!(item[name], value, "{name}");
    }
    for absent in [
        "parentShardId",
        "childShardIds",
        "checkpointOwner",
        "streamName",
    ] {
        assert!(!item.contains_key(absent), "{absent}");
    }
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn s33_shards_with_a_hole_are_listed_three_times_and_then_refused() {
    let rig = Rig::new(3);
    rig.source.trim("s", 1);
    let begun = tokio::time::Instant::now();
    let error = refused(&rig).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(begun.elapsed() >= 2 * SECOND);
    assert_eq!(keys(&rig), []);
}

#[tokio::test(start_paused = true)]
async fn first_leases_that_another_member_left_half_made_are_completed() {
    let rig = Rig::new(4);
    let store = rig.store.beside();
    store.script(|call| match call {
        Call::Create(key) if **key >= *id(2) => Some(Fault::Slow(Duration::from_secs(3_600))),
        _ => None,
    });
    let joining = tokio::time::timeout(SECOND, join(rig.options_over("a", &store)));
    assert!(joining.await.is_err());
    assert_eq!(keys(&rig).len(), 2);
    let app = rig.app("b").await;
    assert_eq!(keys(&rig).len(), 4);
    until(SECOND, || app.count() == 4).await;
}

#[tokio::test(start_paused = true)]
async fn s39_a_source_that_is_busy_is_asked_again() {
    let rig = Rig::new(1);
    rig.source.fail(Some(ErrorKind::Unavailable));
    let source = rig.source.clone();
    tokio::spawn(async move {
        sleep(5 * SECOND).await;
        source.fail(None);
    });
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_table_of_the_native_protocol_of_the_kcl_3_is_refused() {
    for version in ["CLIENT_VERSION_3X", "CLIENT_VERSION_3X_WITH_ROLLBACK"] {
        let rig = Rig::new(1);
        rig.store.set_version(version);
        let error = refused(&rig).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("PHASE1"), "{error}");
    }
    for version in [
        "CLIENT_VERSION_2X",
        "CLIENT_VERSION_UPGRADE_FROM_2X",
        "CLIENT_VERSION_INIT",
    ] {
        let rig = Rig::new(1);
        rig.store.set_version(version);
        join(rig.options("a")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_turns_to_the_native_protocol_is_left() {
    let rig = Rig::new(1);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 1).await;
    rig.store.set_version("CLIENT_VERSION_3X");
    let failed = || app.log().last().unwrap() == "failed unsupported";
    until(Duration::from_secs(61), failed).await;
}

#[tokio::test(start_paused = true)]
async fn a_table_of_another_stream_or_of_one_before_is_refused() {
    let rig = Rig::new(1);
    join(rig.options("a")).await.unwrap().leave().await.unwrap();
    rig.source.create("other", 1);
    let mut options = rig.options("b");
    options.streams = vec![rig.source.described("other")];
    let error = join(options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    rig.source.create("s", 1);
    assert_eq!(refused(&rig).await.kind(), ErrorKind::Invalid);
}

/// Leaves the lease of a shard as a Java worker would have written it.
fn as_java_writes(rig: &Rig, shard: usize, checkpoint: &str) {
    let mut item = rig.store.item(&id(shard)).unwrap();
    item.retain(|name, _| !name.starts_with("millstream"));
    item.insert(names::CHECKPOINT.into(), string(checkpoint));
    rig.store.put(item);
}

#[tokio::test(start_paused = true)]
async fn leases_that_java_made_for_another_stream_are_refused() {
    let starting = "49546986683135544286507457935754639466300920667981217794";
    let own = "49546986683135544286507457936321625675700192471156785154";
    let older = "49543463076570308322303623326179887152428262250726293522";
    let younger = "49590338271490256608559692540925702759324208523137515618";
    for (checkpoints, is_refused) in [
        ([own, "TRIM_HORIZON"], false),
        ([own, "SHARD_END"], false),
        ([own, younger], true),
        (["TRIM_HORIZON", older], true),
        (["TRIM_HORIZON", "SHARD_END"], true),
        (["TRIM_HORIZON", "LATEST"], false),
    ] {
        let rig = Rig::new(2);
        rig.source.begin_at("s", 0, starting.parse().unwrap());
        rig.source.begin_at("s", 1, starting.parse().unwrap());
        join(rig.options("a")).await.unwrap().leave().await.unwrap();
        for (shard, checkpoint) in checkpoints.into_iter().enumerate() {
            as_java_writes(&rig, shard, checkpoint);
        }
        let before = rig.store.rows();
        let reset = super::resetting::to(&rig, Start::Latest);
        if is_refused {
            let error = refused(&rig).await;
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.message().contains(&*id(1)), "{error}");
            let error = reset.await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert_eq!(rig.store.rows(), before, "{checkpoints:?}");
        } else {
            join(rig.options("b")).await.unwrap().leave().await.unwrap();
            reset.await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_parsed_is_refused() {
    let rig = Rig::new(2);
    drop(join(rig.options("a")).await.unwrap());
    let mut damaged = rig.store.item(&id(0)).unwrap();
    damaged.remove(names::CHECKPOINT);
    rig.store.put(damaged.clone());
    let error = refused(&rig).await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    for words in [&*id(0), "attribute checkpoint"] {
        assert!(error.message().contains(words), "{error}");
    }
    // A row of another kind is no lease.
    rig.store.remove(&id(0));
    damaged.insert(names::KEY.into(), string("settings"));
    rig.store.put(damaged);
    join(rig.options("b")).await.unwrap();
    assert!(
        rig.store.row(&id(0)).is_some(),
        "the lease is created again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_row_of_another_form_ends_no_running_member() {
    let rig = Rig::new(2);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 2).await;
    let mut other = rig.store.item(&id(0)).unwrap();
    let key = string("000000000000:t:1700000000:shardId-000000000000");
    other.insert(names::KEY.into(), key);
    rig.store.put(other);
    sleep(Duration::from_secs(300)).await;
    assert_eq!(app.count(), 2, "{:?}", app.log());
    assert_eq!(refused(&rig).await.kind(), ErrorKind::Invalid);
}

/// Each lease takes two requests of 20 ms.
#[tokio::test(start_paused = true)]
async fn a_first_join_of_many_shards_is_in_time() {
    let rig = Rig::new(1_500);
    let mut options = rig.options("a");
    options.start = Start::Latest;
    let begun = Instant::now();
    let store = rig.store.beside();
    store.script(|call| match call {
        Call::Create(_) => Some(Fault::Slow(Duration::from_millis(40))),
        _ => None,
    });
    options.store = Arc::new(store);
    join(options).await.unwrap();
    assert_eq!(rig.store.rows().len(), 1_500);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_deleted_or_created_again_ends_the_member() {
    for (again, kind) in [(false, "failed not_found"), (true, "failed invalid")] {
        let rig = Rig::new(1);
        let app = rig.app("a").await;
        until(SECOND, || app.count() == 1).await;
        match again {
            true => rig.source.create("s", 1),
            false => rig.source.delete("s"),
        }
        until(Duration::from_secs(61), || {
            app.log().last().unwrap() == kind
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_of_several_streams_has_keys_and_attributes_of_the_kcl() {
    let rig = Rig::new(1);
    rig.source.create("t", 1);
    let mut options = rig.options("a");
    options.streams = ["s", "t"].map(|name| rig.source.described(name)).into();
    assert_eq!(
        join(options.clone()).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    options.keys = LeaseKeys::Multi;
    let worker = join(options).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let LeaseEvent::Taken { lease, epoch, .. } = worker.next().await else {
            panic!("not taken");
        };
        worker.checkpoint(&lease, epoch, 5.into()).await.unwrap();
        streams.push(lease.stream);
    }
    streams.sort();
    assert_eq!(streams, ["s".into(), "t".into()]);
    let item = rig
        .store
        .item("000000000000:t:1700000060:shardId-000000000000");
    let item = item
        .or(rig
            .store
            .item("000000000000:t:1700000000:shardId-000000000000"))
        .unwrap();
    assert!(
        item["streamName"]
            .as_s()
            .unwrap()
            .starts_with("000000000000:t:17000000")
    );
    assert_eq!(item["shardId"], string("shardId-000000000000"));
    // The other form is rejected, in both directions.
    assert_eq!(refused(&rig).await.kind(), ErrorKind::Invalid);
    let single = Rig::new(1);
    join(single.options("a")).await.unwrap();
    let mut options = single.options("b");
    options.keys = LeaseKeys::Multi;
    assert_eq!(join(options).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn s35_no_lease_is_made_of_a_list_with_a_parent_open_beside_its_children() {
    let rig = Rig::new(1);
    rig.source.split("s", 0);
    rig.source.list_open("s", 0, true);
    let error = join(rig.options("a")).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(keys(&rig).is_empty());
    rig.source.list_open("s", 0, false);
    let app = rig.app("a").await;
    until(SECOND, || app.shards() == [0]).await;
}

#[tokio::test(start_paused = true)]
async fn s41_the_elected_member_heals_a_hole_that_stays() {
    let rig = Rig::new(2);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 2).await;
    rig.store.remove(&id(1));
    until(F, || app.count() == 1).await;
    sleep(Duration::from_secs(300)).await;
    assert_eq!(keys(&rig).len(), 1);
    until(Duration::from_secs(120), || app.count() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn s43_ranges_that_rows_lack_are_added_before_holes_are_looked_for() {
    let rig = Rig::new(2);
    let app = rig.app("a").await;
    let before = rig.store.row(&id(1)).unwrap().range;
    let mut item = rig.store.item(&id(1)).unwrap();
    item.remove(names::FIRST_HASH);
    item.remove(names::LAST_HASH);
    rig.store.put(item);
    until(Duration::from_secs(150), || {
        rig.store.row(&id(1)).unwrap().range == before
    })
    .await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(app.count(), 2);
    assert!(!app.log().iter().any(|what| what.starts_with("lost")));
}

/// Uses the dedicated thread, as in production, on the real clock.
#[tokio::test]
async fn a_member_lives_beside_a_runtime_that_is_blocked() {
    let rig = Rig::new(2);
    let mut options = rig.options("a");
    options.failover = Duration::from_millis(300);
    let worker = crate::lease::Worker::join(options).await.unwrap();
    let LeaseEvent::Taken { lease, epoch, .. } = worker.next().await else {
        panic!("not taken");
    };
    std::thread::sleep(Duration::from_millis(900));
    worker.checkpoint(&lease, epoch, 5.into()).await.unwrap();
    worker.leave().await.unwrap();
    assert_eq!(rig.owners(), ["", ""]);
    let closed = worker
        .checkpoint(&lease, epoch, 6.into())
        .await
        .unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Closed);
}
