//! `Membership::publish`: a step of which only some partitions are lost is tried again.

use std::sync::Arc;

use millstream_core::driver::CheckpointUpdate;
use millstream_core::{ErrorKind, Record};
use tokio::time::{sleep, timeout};

use super::driver_fleet::DriverFleet;
use super::driver_member::until_both;
use crate::cases::cases;
use crate::cases::reader::read;
use crate::harness::unique_stream;
use crate::{Harness, eventually};

cases! {
    c07_step_of_which_a_part_is_lost_is_retryable [EXACTLY_ONCE],
}

async fn c07_step_of_which_a_part_is_lost_is_retryable(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, 2).await;
    let stored = fleet.fill(1).await;
    let sink = unique_stream(&*fleet.harness, 1).await;
    let mut a = fleet.join("a").await;
    a.until("a owns both partitions", |a| a.owned().len() == 2)
        .await;
    let before = a.owned();
    let mut b = fleet.join("b").await;
    until_both(&mut a, &mut b, "each owns one partition", |a, b| {
        a.owned().len() == 1 && b.owned().len() == 1
    })
    .await;
    let update = |partition| CheckpointUpdate {
        position: stored[&partition][0],
        epoch: before[&partition],
        partition,
    };
    let kept = update(a.owned().into_keys().next().expect("it owns one"));
    let lost = update(b.owned().into_keys().next().expect("it owns one"));

    let both = [kept.clone(), lost];
    let refused = [Record::new("refused").key("key")];
    let published = a.membership.publish(&sink, &refused, &both);
    let published = timeout(fleet.timing.timeout, published).await;
    let error = published
        .expect("a step has a result")
        .expect_err("one of the partitions is b's");
    assert!(
        error.is_retryable() && error.kind() != ErrorKind::Fenced,
        "a still owns {}, so the error must be retryable: {error:?}",
        kept.partition
    );
    let progress = fleet.position(&kept.partition).await;
    assert_ne!(
        progress,
        Some(kept.position),
        "nothing of the step is stored"
    );

    let records = [Record::new("stored").key("key")];
    let own = [kept];
    eventually(
        fleet.timing,
        "the part that a owns is published",
        async || match a.membership.publish(&sink, &records, &own).await {
            Ok(()) => Some(()),
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                sleep(fleet.timing.poll_interval).await;
                None
            }
        },
    )
    .await;
    let position = fleet.position(&own[0].partition).await;
    assert_eq!(
        position,
        Some(own[0].position),
        "it is stored with its record"
    );
    let results = read(&*fleet.harness, &sink, 1).await;
    assert_eq!(results[0].payload().as_ref(), b"stored");
    a.leave().await;
    b.leave().await;
}
