//! Shards are split and merged while different sides own parents and children.

use std::collections::BTreeSet;

use aws_sdk_kinesis::types::Shard;
use millstream_kinesis::Aggregation;

use crate::crash::{now, taken_over};
use crate::fixture::Fixture;
use crate::member::{Member, Side};

/// One side reads a parent to shard end and is killed; the other side continues with the children.
pub(crate) async fn generations(fixture: Fixture, side: Side) {
    fixture.create_leases().await;
    let first = Member::start(&fixture, side, "first").await;
    let background_load = fixture.send_in_background(Aggregation::Kpl).await;
    fixture.at_work("first").await;
    let parent = fixture.shards().await.remove(0);
    split(&fixture, &parent).await;
    fixture
        .until("the parent is read to its end", || async {
            let leases = fixture.leases().await;
            let parent = leases.get(parent.shard_id());
            parent
                .is_none_or(|lease| lease.checkpoint == "SHARD_END")
                .then_some(())
        })
        .await;
    let at = now();
    first.kill().await;

    let second = Member::start(&fixture, side.other(), "second").await;
    let children = children_of(&fixture, parent.shard_id()).await;
    let took = taken_over(&fixture, "first", &children, at).await;
    let summary = fixture.check(&background_load.stop().await).await;
    fixture.print(&format!(
        "{side:?} read the parent, the children went on after {took:.1?}: {summary}"
    ));
    second.stop().await;
}

/// Two shards owned by different sides are merged, and one shard of each side is split, while both continue.
pub(crate) async fn under_both(fixture: Fixture) {
    let ours = Member::start(&fixture, Side::Rust, "ours").await;
    let background_load = fixture.send_in_background(Aggregation::Off).await;
    fixture.balanced(&["ours"]).await;
    let java = Member::start(&fixture, Side::Java, "java").await;
    fixture.balanced(&["ours", "java"]).await;

    let shards = fixture.shards().await;
    let held = BTreeSet::from_iter(fixture.held_by("ours").await);
    let is_ours = |shard: &Shard| held.contains(shard.shard_id());
    let border = shards
        .windows(2)
        .position(|pair| is_ours(&pair[0]) != is_ours(&pair[1]));
    let border = border.expect("neighbours of different sides");
    for (n, shard) in shards.iter().enumerate() {
        if n == border {
            merge(&fixture, shard, &shards[n + 1]).await;
        } else if n != border + 1 {
            split(&fixture, shard).await;
        }
    }

    let open = open(&fixture).await;
    assert_eq!(open.len(), 5);
    fixture
        .until("the children are read", || async {
            let handlers = fixture.log.last_handlers();
            open.iter()
                .all(|shard| handlers.contains_key(shard))
                .then_some(())
        })
        .await;
    let sent = background_load.stop().await;
    let summary = fixture.check(&sent).await;
    fixture
        .until("the parents' leases are removed", || async {
            let leases = fixture.leases().await;
            leases.keys().eq(open.iter()).then_some(())
        })
        .await;
    fixture.print(&format!("two splits and a merge: {summary}"));
    java.stop().await;
    ours.stop().await;
}

async fn open(fixture: &Fixture) -> BTreeSet<String> {
    let shards = fixture.shards().await.into_iter();
    let open = shards.filter(|shard| {
        let range = shard.sequence_number_range();
        range.is_some_and(|range| range.ending_sequence_number().is_none())
    });
    open.map(|shard| shard.shard_id).collect()
}

async fn children_of(fixture: &Fixture, parent: &str) -> Vec<String> {
    let shards = fixture.shards().await.into_iter();
    let children = shards.filter(|shard| shard.parent_shard_id() == Some(parent));
    children.map(|shard| shard.shard_id).collect()
}

async fn split(fixture: &Fixture, shard: &Shard) {
    let range = shard.hash_key_range().expect("a shard has a range");
    let number = |text: &str| text.parse::<u128>().expect("a hash is a number");
    let (first, last) = (
        number(range.starting_hash_key()),
        number(range.ending_hash_key()),
    );
    let middle = first + (last - first) / 2;
    let split = fixture
        .testbed
        .kinesis()
        .split_shard()
        .stream_name(&fixture.name);
    let split = split
        .shard_to_split(shard.shard_id())
        .new_starting_hash_key(middle.to_string());
    split.send().await.expect("the shard splits");
    active(fixture).await;
}

async fn merge(fixture: &Fixture, one: &Shard, other: &Shard) {
    let merge = fixture
        .testbed
        .kinesis()
        .merge_shards()
        .stream_name(&fixture.name);
    let merge = merge
        .shard_to_merge(one.shard_id())
        .adjacent_shard_to_merge(other.shard_id());
    merge.send().await.expect("the shards merge");
    active(fixture).await;
}

/// Waits until the stream is active again.
async fn active(fixture: &Fixture) {
    fixture
        .until("the stream is active", || async {
            let describe = fixture.testbed.kinesis().describe_stream_summary();
            let described = describe.stream_name(&fixture.name).send().await;
            let summary = described
                .expect("it is described")
                .stream_description_summary;
            let status = summary.expect("it has a summary").stream_status;
            (status == aws_sdk_kinesis::types::StreamStatus::Active).then_some(())
        })
        .await;
}
