//! How far a member is behind, as its driver reports it.

use std::sync::Arc;
use std::time::Duration;

use super::driver_fleet::DriverFleet;
use crate::Harness;
use crate::cases::cases;

cases! {
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
