use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue::{B, N, S, Ss};

use super::*;
use crate::lease::store::Item;

fn item(attributes: &[(&str, aws_sdk_dynamodb::types::AttributeValue)]) -> Item {
    let attributes = attributes.iter().cloned();
    attributes
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn text(text: &str) -> aws_sdk_dynamodb::types::AttributeValue {
    S(text.to_owned())
}

fn written_by_kcl() -> Item {
    let checkpoint = "49680487875253197627353136438186415652449692378218889218";
    item(&[
        ("checkpoint", text(checkpoint)),
        ("checkpointSubSequenceNumber", N("3".into())),
        (
            "childShardIds",
            Ss(vec!["shardId-5".into(), "shardId-4".into()]),
        ),
        (
            "endingHashKey",
            text("85070591730234615865843651857942052862"),
        ),
        ("leaseCounter", N("17".into())),
        ("leaseKey", text("shardId-000000000000")),
        ("leaseOwner", text("w1km")),
        ("ownerSwitchesSinceCheckpoint", N("2".into())),
        ("parentShardId", Ss(vec!["shardId-000000000002".into()])),
        ("startingHashKey", text("0")),
        ("throughputKBps", N("0.005258".into())),
    ])
}

#[test]
fn rows_of_the_kcl_are_read() {
    let row = Row::read(&written_by_kcl()).unwrap();
    let position: Position = "49680487875253197627353136438186415652449692378218889218.3"
        .parse()
        .unwrap();
    assert_eq!(row.progress, Progress::After(position));
    assert_eq!((row.counter, row.switches), (17, 2));
    assert_eq!(row.owner.as_deref(), Some("w1km"));
    assert_eq!(row.parents, ["shardId-000000000002".into()]);
    assert_eq!(row.children, ["shardId-4".into(), "shardId-5".into()]);
    assert_eq!(row.range.unwrap().first, 0);
    assert!(!row.can_be_requested());
}

#[test]
fn what_rows_may_lack_is_borne() {
    let mut item = written_by_kcl();
    for name in [
        "leaseOwner",
        "ownerSwitchesSinceCheckpoint",
        "checkpointSubSequenceNumber",
        "startingHashKey",
        "parentShardId",
        "childShardIds",
    ] {
        item.remove(name);
    }
    // The KCL writes a number when it creates the row, and bytes later.
    item.insert("pendingCheckpointState".into(), N("0".into()));
    item.insert("unknown".into(), B(Blob::new([1])));
    item.insert("entityType".into(), text("LEASE"));
    let row = Row::read(&item).unwrap();
    assert_eq!((row.owner, row.range, row.switches), (None, None, 0));
}

#[test]
fn rows_that_are_no_leases_are_told_from_broken_ones() {
    let mut other = written_by_kcl();
    other.insert("entityType".into(), text("WORKER_METRIC_STATS"));
    assert_eq!(Row::read(&other), Err(Unread::Other));
    for name in ["checkpoint", "leaseCounter", "leaseKey"] {
        let mut broken = written_by_kcl();
        broken.remove(name);
        assert_eq!(Row::read(&broken), Err(Unread::Lacks(name)));
    }
    for checkpoint in ["", "-1", "12x", "1.2", "NEWEST"] {
        let mut broken = written_by_kcl();
        broken.insert("checkpoint".into(), text(checkpoint));
        let read = Row::read(&broken);
        assert_eq!(read, Err(Unread::Lacks("checkpoint")), "{checkpoint:?}");
    }
}

#[test]
fn sentinels_are_read() {
    for (stored, progress) in [
        ("TRIM_HORIZON", Progress::TrimHorizon),
        ("LATEST", Progress::Latest),
        ("AT_TIMESTAMP", Progress::AtTimestamp),
        ("SHARD_END", Progress::End),
    ] {
        let mut item = written_by_kcl();
        item.insert("checkpoint".into(), text(stored));
        assert_eq!(Row::read(&item).unwrap().progress, progress);
        assert_eq!(new::checkpoint(progress), stored);
    }
}

#[test]
fn a_handover_of_the_kcl_3_leaves_the_lease_with_its_holder() {
    let mut item = written_by_kcl();
    item.insert("checkpointOwner".into(), text("old"));
    let row = Row::read(&item).unwrap();
    assert_eq!(row.holder().map(|id| &**id), Some("old"));
    assert_eq!(row.next_owner().map(|id| &**id), Some("w1km"));
}
