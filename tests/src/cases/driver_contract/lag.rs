//! The lag of a member, as its driver reports it.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::Partition;

use super::driver_fleet::DriverFleet;
use super::driver_member::DriverMember;
use crate::Harness;
use crate::cases::cases;

cases! {
    operate_lag_of_a_paused_partition_is_reported,
    operate_lag_of_a_quiet_partition_is_reported,
    operate_lag_of_a_reader_at_the_end_is_zero,
}

async fn operate_lag_of_a_reader_at_the_end_is_zero(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, 2).await;
    let stored = fleet.fill(3).await;
    let mut member = fleet.join("a").await;
    member
        .until(
            "it has every record, and knows that nothing is left",
            |it| {
                let mut stored = stored.iter();
                stored.all(|(of, all)| {
                    let lag = it.assignment(of).and_then(|assignment| assignment.lag);
                    let at_the_end = it.records(of).last() == all.last();
                    at_the_end && lag.is_some_and(|lag| lag.time == Some(Duration::ZERO))
                })
            },
        )
        .await;
    for partition in stored.keys() {
        let lag = member.assignment(partition).and_then(|it| it.lag);
        let records = lag.and_then(|lag| lag.records);
        assert!(
            records.is_none_or(|records| records == 0),
            "nothing is left in {partition}: {lag:?}"
        );
    }
    member.leave().await;
}

async fn operate_lag_of_a_quiet_partition_is_reported(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, 2).await;
    let mut member = fleet.join("a").await;
    member
        .until("it knows that nothing is left", |it| {
            let owned = it.owned().into_keys();
            let lags = owned.filter_map(|of| it.assignment(&of)?.lag);
            lags.filter(|lag| lag.time == Some(Duration::ZERO)).count() == 2
        })
        .await;
    member.leave().await;
}

/// Returns the lag of a paused partition, if records are known to wait.
fn lag_in_pause(member: &DriverMember, partition: &Partition, stored: usize) -> Option<Duration> {
    let delivered = member.records(partition).len();
    assert!(
        delivered < stored,
        "{partition} is paused, and records that were stored later are delivered"
    );
    let lag = member.assignment(partition)?.lag?;
    let missing = (stored - delivered) as u64;
    let is_known = lag.records.is_none_or(|records| records >= missing);
    lag.time.filter(|time| is_known && !time.is_zero())
}

async fn operate_lag_of_a_paused_partition_is_reported(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, 1).await;
    let mut stored = fleet.fill(3).await;
    let (partition, positions) = stored.pop_first().expect("there is a partition");
    let stored = positions.len();
    let mut member = fleet.join("a").await;
    let owned = "it owns the partition";
    member.until(owned, |it| it.owned().len() == 1).await;
    let epoch = member.owned()[&partition];
    // It may not have read anything, and records that it has read wait.
    member.membership.pause(&partition, epoch);
    let waits = |it: &DriverMember| {
        let is_complete = it.records(&partition).len() == stored;
        is_complete || lag_in_pause(it, &partition, stored).is_some()
    };
    member
        .until("a lag of the records that a pause holds back", waits)
        .await;

    member.membership.resume(&partition, epoch);
    member
        .until("it has every record, and nothing is left", |it| {
            let lag = it.assignment(&partition).and_then(|of| of.lag);
            let is_zero = lag.is_some_and(|lag| lag.time == Some(Duration::ZERO));
            is_zero && it.records(&partition).len() == stored
        })
        .await;
    member.membership.pause(&partition, epoch);
    let stored = stored + fleet.fill(2).await[&partition].len();
    let grows = |least: Duration| {
        let partition = &partition;
        move |it: &DriverMember| lag_in_pause(it, partition, stored) > Some(least)
    };
    let what = "a lag of the records that were stored in a pause";
    member.until(what, grows(Duration::ZERO)).await;
    let first = lag_in_pause(&member, &partition, stored).expect("it was just there");
    let what = "a lag that grows while the pause lasts";
    member
        .until(what, grows(first + Duration::from_secs(2)))
        .await;
    member.membership.resume(&partition, epoch);
    let what = "every record comes after the pause";
    member
        .until(what, |it| it.records(&partition).len() == stored)
        .await;
    member.leave().await;
}
