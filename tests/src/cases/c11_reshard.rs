//! C11: parent before child, children from their beginning; no record lost or reordered per key while
//! partitions split, merge or are added.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{ErrorKind, Partition, Start};

use super::cases;
use crate::Harness;
use crate::fleet::{Fleet, Member};
use crate::history::Event;

cases! {
    c11_split_under_load [RESHARD],
    c11_merge_under_load [RESHARD],
    c11_tree_of_splits [RESHARD],
    c11_children_wait_for_their_parents [RESHARD],
    c11_crash_between_parent_and_child [RESHARD],
    c11_latest_group_reads_children_from_their_beginning [RESHARD],
    c11_invalid_reshards_are_refused [RESHARD],
    c11_split_and_merge_are_unsupported [NO_RESHARD],
    c11_added_partitions_are_read_from_their_beginning [ADD_PARTITIONS],
    c11_invalid_additions_are_refused [ADD_PARTITIONS],
    c11_adding_partitions_is_unsupported [NO_ADD_PARTITIONS],
}

async fn members(fleet: &Fleet, count: usize) -> Vec<Member> {
    let mut members = Vec::new();
    for index in 0..count {
        let takes = Duration::from_millis(3 + 4 * index as u64);
        members.push(
            fleet
                .member(&format!("m{index}"))
                .handler_delay(takes)
                .start()
                .await,
        );
    }
    members
}

/// Stops the load, checks, and sees every closed partition completed.
async fn finish(fleet: Fleet, members: Vec<Member>) {
    let summary = fleet.check().await;
    assert_eq!(
        (summary.lost, summary.out_of_order, summary.duplicates),
        (0, 0, 0),
        "{summary:?}"
    );
    let described = fleet.client.streams().describe(&fleet.stream).await;
    let described = described.expect("the stream is described");
    let closed: Vec<_> = described.partitions.iter().filter(|p| !p.open).collect();
    assert!(
        !closed.is_empty(),
        "the case shows nothing unless a partition was closed"
    );
    assert!(
        described.partitions.iter().any(|p| !p.parents.is_empty()),
        "a child names its parents: {:?}",
        described.partitions
    );
    let completed = fleet.eventually("closed partitions are completed", || async {
        let checkpoints = fleet.checkpoints().await;
        let completed = |partition: &Partition| {
            checkpoints
                .iter()
                .any(|c| c.partition == *partition && c.completed)
        };
        closed
            .iter()
            .all(|closed| completed(&closed.partition))
            .then_some(())
    });
    completed.await;
    for member in members {
        member.close().await;
    }
}

async fn c11_split_under_load(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(20, Duration::from_millis(1));
    let members = members(&fleet, 2).await;
    fleet
        .until("records are handled", || fleet.acked() >= 100)
        .await;
    let open = fleet.open_partitions().await;
    fleet
        .client
        .streams()
        .split(&open[0])
        .await
        .expect("it is split");
    assert_eq!(
        fleet.open_partitions().await.len(),
        3,
        "a split makes 3 of 2"
    );
    fleet
        .until("records are handled", || fleet.acked() >= 400)
        .await;
    background_load.stop().await;
    finish(fleet, members).await;
}

async fn c11_merge_under_load(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(20, Duration::from_millis(1));
    let members = members(&fleet, 2).await;
    fleet
        .until("records are handled", || fleet.acked() >= 100)
        .await;
    let open = fleet.open_partitions().await;
    fleet
        .client
        .streams()
        .merge(&open[0], &open[1])
        .await
        .expect("they are merged");
    let merged = fleet.open_partitions().await;
    assert_eq!(merged.len(), 1, "a merge makes 1 of 2: {merged:?}");
    let described = fleet.client.streams().describe(&fleet.stream).await;
    let described = described.expect("the stream is described").partitions;
    let child = described
        .iter()
        .find(|p| p.partition == merged[0])
        .expect("it is described");
    let mut parents = child.parents.clone();
    parents.sort();
    assert_eq!(parents, open, "the child names both parents");
    fleet
        .until("records are handled", || fleet.acked() >= 400)
        .await;
    background_load.stop().await;
    finish(fleet, members).await;
}

async fn c11_tree_of_splits(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(32, Duration::from_millis(1));
    let mut members = members(&fleet, 3).await;
    let streams = fleet.client.streams();
    for generation in 1..=3 {
        fleet
            .until("records are handled", || fleet.acked() >= generation * 150)
            .await;
        for partition in fleet.open_partitions().await {
            streams.split(&partition).await.expect("it is split");
        }
        if generation == 2 {
            members.remove(0).close().await;
        }
    }
    assert_eq!(
        fleet.open_partitions().await.len(),
        8,
        "three splits of each partition make 8"
    );
    fleet
        .until("records are handled", || fleet.acked() >= 600)
        .await;
    background_load.stop().await;
    finish(fleet, members).await;
}

async fn c11_children_wait_for_their_parents(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(10, 5).await;
    let parent = fleet.open_partitions().await.remove(0);
    fleet
        .client
        .streams()
        .split(&parent)
        .await
        .expect("it is split");
    let mut more =
        crate::fleet::TestProducer::open(&fleet.client, &fleet.stream, &fleet.history, 500).await;
    for turn in 0..50 {
        more.send_one(Some(&format!("other-{}", turn % 10))).await;
    }
    more.close().await;
    let mut members = members(&fleet, 2).await;
    members.push(
        fleet
            .member("slow")
            .handler_delay(Duration::from_millis(200))
            .start()
            .await,
    );
    fleet.settled().await;
    let mut last_of_parent = None;
    let mut first_of_child = None;
    let mut order = 0;
    fleet.history.each(|event| {
        order += 1;
        match event {
            Event::Ended { handling, .. } if handling.by.partition == parent => {
                last_of_parent = Some(order);
            }
            Event::Began(handling) if handling.by.partition != parent => {
                first_of_child.get_or_insert(order);
            }
            _ => {}
        }
    });
    assert!(
        last_of_parent < first_of_child,
        "{last_of_parent:?} {first_of_child:?}"
    );
    finish(fleet, members).await;
}

async fn c11_crash_between_parent_and_child(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(10, Duration::from_millis(2));
    let a = fleet
        .member("a")
        .handler_delay(Duration::from_millis(10))
        .start()
        .await;
    fleet
        .until("records are handled", || fleet.acked() >= 50)
        .await;
    let open = fleet.open_partitions().await;
    fleet
        .client
        .streams()
        .split(&open[0])
        .await
        .expect("it is split");
    a.crash().await;
    let members = members(&fleet, 2).await;
    fleet
        .until("records are handled", || fleet.acked() >= 200)
        .await;
    background_load.stop().await;
    fleet.check().await;
    for member in members {
        member.close().await;
    }
}

async fn c11_latest_group_reads_children_from_their_beginning(harness: Arc<dyn Harness>) {
    let old = Fleet::new(harness.clone(), 1).await;
    old.send(10, 2).await;
    let fleet = Fleet::on(harness, old.stream.clone(), Default::default(), false).await;
    let latest = |group: millstream_core::ConsumerGroup| group.start(Start::Latest);
    let a = fleet.member("a").with(latest).start().await;
    fleet.until("the group is created", || a.owns() == 1).await;
    a.close().await;
    let open = fleet.open_partitions().await;
    fleet
        .client
        .streams()
        .split(&open[0])
        .await
        .expect("it is split");
    fleet.send(10, 5).await;
    let b = fleet.member("b").with(latest).start().await;
    let summary = fleet.check().await;
    assert_eq!(
        summary.handled, 50,
        "all that was sent after the group's creation, and nothing before"
    );
    b.close().await;
}

async fn c11_invalid_reshards_are_refused(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let streams = fleet.client.streams();
    let open = fleet.open_partitions().await;
    let same = streams
        .merge(&open[0], &open[0])
        .await
        .expect_err("they are the same");
    assert_eq!(same.kind(), ErrorKind::Invalid, "{same:?}");
    let nowhere = Partition::new(fleet.stream.as_str(), "no-such-partition");
    let unknown = streams.split(&nowhere).await.expect_err("there is none");
    assert_eq!(unknown.kind(), ErrorKind::NotFound, "{unknown:?}");
    assert_eq!(unknown.stream(), Some(fleet.stream.as_str()), "{unknown:?}");
    let unknown = streams.split(&Partition::new("no-such-stream", "0")).await;
    assert_eq!(
        unknown.expect_err("there is none").kind(),
        ErrorKind::NotFound,
        "no such stream"
    );
    streams.split(&open[0]).await.expect("it is split");
    let closed = streams.split(&open[0]).await.expect_err("it is closed");
    assert_eq!(closed.kind(), ErrorKind::Invalid, "{closed:?}");
    assert_eq!(closed.partition(), Some(&open[0]), "{closed:?}");
    let closed = streams
        .merge(&open[0], &open[1])
        .await
        .expect_err("it is closed");
    assert_eq!(closed.kind(), ErrorKind::Invalid, "{closed:?}");
}

async fn c11_split_and_merge_are_unsupported(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let streams = fleet.client.streams();
    let open = fleet.open_partitions().await;
    let split = streams.split(&open[0]).await.expect_err("it cannot");
    assert_eq!(split.kind(), ErrorKind::Unsupported, "{split:?}");
    let merge = streams
        .merge(&open[0], &open[1])
        .await
        .expect_err("it cannot");
    assert_eq!(merge.kind(), ErrorKind::Unsupported, "{merge:?}");
}

async fn c11_added_partitions_are_read_from_their_beginning(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let latest = |group: millstream_core::ConsumerGroup| group.start(Start::Latest);
    let a = fleet
        .member("a")
        .with(latest)
        .handler_delay(Duration::from_millis(3))
        .start()
        .await;
    fleet.until("the group is created", || a.owns() == 2).await;
    let b = fleet
        .member("b")
        .with(latest)
        .handler_delay(Duration::from_millis(7))
        .start()
        .await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(20, Duration::from_millis(1));
    fleet
        .until("records are handled", || fleet.acked() >= 100)
        .await;
    fleet.history.record(Event::Remapped {
        stream: fleet.stream.as_str().into(),
    });
    let streams = fleet.client.streams();
    streams
        .add_partitions(&fleet.stream, 5)
        .await
        .expect("they are added");
    assert_eq!(fleet.open_partitions().await.len(), 5, "3 are added to 2");
    fleet
        .until("records are handled", || fleet.acked() >= 500)
        .await;
    background_load.stop().await;
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    fleet
        .until("all partitions have an owner", || a.owns() + b.owns() == 5)
        .await;
    a.close().await;
    b.close().await;
}

async fn c11_invalid_additions_are_refused(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let streams = fleet.client.streams();
    for wrong in [0, 1, 2] {
        let refused = streams.add_partitions(&fleet.stream, wrong).await;
        let refused = refused.expect_err("there are as many already");
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused:?}");
        assert_eq!(refused.stream(), Some(fleet.stream.as_str()), "{refused:?}");
    }
    let unknown = streams.add_partitions("no-such-stream", 3).await;
    assert_eq!(
        unknown.expect_err("there is none").kind(),
        ErrorKind::NotFound,
        "no such stream"
    );
}

async fn c11_adding_partitions_is_unsupported(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let added = fleet
        .client
        .streams()
        .add_partitions(&fleet.stream, 5)
        .await;
    assert_eq!(
        added.expect_err("it cannot").kind(),
        ErrorKind::Unsupported,
        "the backend does not promise add_partitions"
    );
}
