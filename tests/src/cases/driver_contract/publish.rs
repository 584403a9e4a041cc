//! `Membership::publish`: a step whose partitions are only partly lost is retried, and the result of
//! a step is certain, whatever happens to the connection.

use std::sync::Arc;

use millstream_core::driver::CheckpointUpdate;
use millstream_core::{ErrorKind, Partition, Position, Record};
use tokio::time::{Instant, sleep, timeout};

use super::driver_fleet::DriverFleet;
use super::driver_member::{DriverMember, until_both};
use crate::cases::cases;
use crate::cases::reader::read;
use crate::harness::unique_stream;
use crate::{Fault, Harness, eventually};

cases! {
    c07_step_of_which_a_part_is_lost_is_retryable [EXACTLY_ONCE],
    pipeline_step_whose_response_is_lost_is_stored_once [EXACTLY_ONCE, LOSE_PUBLISH_RESPONSES],
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
    await_position(&fleet, &own[0]).await;
    let results = read(&*fleet.harness, &sink, 1).await;
    assert_eq!(
        results[0].payload().as_ref(),
        b"stored",
        "the step that was refused has stored nothing"
    );
    a.leave().await;
    b.leave().await;
}

/// Waits until the progress of a step can be read: a broker may show it a moment after the step ended.
async fn await_position(fleet: &DriverFleet, update: &CheckpointUpdate) {
    let what = "the progress of the step is stored";
    eventually(fleet.timing, what, async || {
        let position = fleet.position(&update.partition).await;
        (position == Some(update.position)).then_some(())
    })
    .await;
}

/// Joins, and waits until the member owns the one partition.
async fn join_alone(fleet: &DriverFleet) -> DriverMember {
    let mut member = fleet.join("a").await;
    member
        .until("it owns the partition", |it| it.owned().len() == 1)
        .await;
    member
}

/// Publishes as the runtime does: it retries after a retryable error, and every other error ends the
/// membership. The next member then finds the step stored, or publishes it again. Returns the member.
async fn publish_once(
    fleet: &DriverFleet,
    mut member: DriverMember,
    (stream, partition): (&str, &Partition),
    record: Record,
    position: Position,
) -> DriverMember {
    let records = [record];
    let deadline = Instant::now() + fleet.timing.timeout;
    loop {
        let updates = [CheckpointUpdate {
            partition: partition.clone(),
            epoch: member.owned()[partition],
            position,
        }];
        let published = member.membership.publish(stream, &records, &updates);
        let published = timeout(fleet.timing.timeout, published).await;
        match published.expect("a step has a result") {
            Ok(()) => return member,
            Err(error) => {
                assert!(
                    Instant::now() < deadline,
                    "the step is not stored: {error:?}"
                );
                if error.is_retryable() {
                    sleep(fleet.timing.poll_interval).await;
                    continue;
                }
            }
        }
        member.leave().await;
        member = join_alone(fleet).await;
        let assignment = member.assignment(partition).expect("it owns the partition");
        if assignment.resume_after >= Some(position) {
            return member;
        }
    }
}

async fn pipeline_step_whose_response_is_lost_is_stored_once(harness: Arc<dyn Harness>) {
    const STEPS: usize = 4;
    let fleet = DriverFleet::new(harness, 1).await;
    let stored = fleet.fill(STEPS).await;
    let (partition, positions) = stored.first_key_value().expect("there is a partition");
    let sink = unique_stream(&*fleet.harness, 1).await;
    let mut member = join_alone(&fleet).await;
    for (step, position) in positions.iter().take(STEPS).enumerate() {
        if step % 2 == 1 {
            let fault = Fault::LosePublishResponses {
                group: fleet.group.clone(),
                times: 1,
            };
            fleet.harness.inject(fault).await;
        }
        let record = Record::new(format!("step {step}")).key("key");
        let to = (sink.as_str(), partition);
        member = publish_once(&fleet, member, to, record, *position).await;
    }
    let hits = fleet.harness.hits(&fleet.group);
    assert_eq!(hits, STEPS as u64 / 2, "responses were lost");
    member.leave().await;
    let results = read(&*fleet.harness, &sink, STEPS).await;
    let payloads = results
        .iter()
        .map(|result| String::from_utf8_lossy(result.payload()).into_owned());
    let payloads: Vec<String> = payloads.collect();
    let expected: Vec<String> = (0..STEPS).map(|step| format!("step {step}")).collect();
    assert_eq!(payloads, expected, "each step is stored once");
}
