//! Members of different groups that share a registered consumer.

use std::sync::Arc;

use super::super::ResumePoint;
use super::fake::Fake;
use super::{position, run_in_fan_out, secs};
use crate::log_lines::LogLines;

const CONTENDED: &str = "millstream.kinesis.fan_out.contended";

/// Returns a shard with one subscription for a consumer, as in Kinesis.
fn fake() -> Arc<Fake> {
    let fake = Fake::new(1..=20);
    fake.lock().is_exclusive = true;
    fake
}

#[tokio::test(start_paused = true)]
async fn each_member_reports_once_that_another_group_uses_its_consumer() {
    let log = LogLines::record();
    let fake = fake();
    let mut one = run_in_fan_out(&fake, ResumePoint::Earliest);
    let mut other = run_in_fan_out(&fake, ResumePoint::Earliest);
    one.expect(1..=20).await;
    other.expect(1..=20).await;
    one.expect_nothing(secs(60)).await;
    other.expect_nothing(secs(240)).await;
    fake.store(21..=30);
    one.expect(21..=30).await;
    other.expect(21..=30).await;
    let lines = log.of(CONTENDED);
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in lines {
        assert!(
            line.contains("WARN") && line.contains("consumer.fan_out_name"),
            "{line}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_moves_between_members_is_not_contended() {
    let log = LogLines::record();
    let fake = fake();
    let mut previous = run_in_fan_out(&fake, ResumePoint::Earliest);
    previous.expect(1..=20).await;
    // The previous owner learns only later that it has lost the lease.
    let mut next = run_in_fan_out(&fake, ResumePoint::After(position("20")));
    next.expect_nothing(secs(10)).await;
    drop(previous);
    next.expect_nothing(secs(1_000)).await;
    fake.store(21..=30);
    next.expect(21..=30).await;
    assert_eq!(log.of(CONTENDED), [""; 0]);
}
