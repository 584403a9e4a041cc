//! What is left of a shard's limits for others.

use std::time::Duration;

use aws_sdk_kinesis::types::ShardIteratorType;
use conformance::{Harness, eventually};
use millstream_core::Start;
use millstream_kinesis::Config;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::fixture::Fixture;

/// How often the third client polls, once a second.
const POLLS: u32 = 30;

/// Two groups without records and with default settings, and a third client that polls once a second: a shard accepts
/// five requests a second of all of them.
pub(crate) async fn leave_room(fixture: Fixture) {
    let (fleet, harness) = (&fixture.fleet, &fixture.harness);
    let testbed = harness.testbed();
    testbed.limit_reads(&fleet.stream);
    let default = Config::default().consumer.poll_interval;
    let mut consumers = Vec::new();
    for name in ["a", "b"] {
        let client = harness
            .client_with(name, |config| config.consumer.poll_interval = default)
            .await;
        let group = client.group(format!("{}-{name}", fleet.group));
        let group = group.stream(fleet.stream.as_str()).start(Start::Earliest);
        consumers.push(group.join().await.expect("it joins"));
    }
    let polls = || testbed.stats().polls(&harness.clients());
    eventually(harness.timing(), "both groups poll", || async {
        (polls().requests >= 10).then_some(())
    })
    .await;
    let throttled = third_client(&fixture).await;
    let polls = polls();
    assert!(
        polls.throttled * 50 < polls.requests,
        "of the groups: {polls:?}"
    );
    assert!(
        throttled * 20 < POLLS,
        "{throttled} of {POLLS} of the third"
    );
    for consumer in consumers {
        consumer.close().await.expect("it closes");
    }
}

/// Polls the only shard, and returns how often that was throttled.
async fn third_client(fixture: &Fixture) -> u32 {
    let testbed = fixture.harness.testbed();
    let through = testbed.kinesis().config().to_builder();
    let through = through.endpoint_url(testbed.endpoint()).build();
    let kinesis = aws_sdk_kinesis::Client::from_conf(through);
    let stream = &fixture.fleet.stream;
    let iterator = eventually(fixture.harness.timing(), "it has an iterator", || async {
        let request = kinesis.get_shard_iterator().stream_name(stream);
        let request = request
            .shard_id("shardId-000000000000")
            .shard_iterator_type(ShardIteratorType::TrimHorizon);
        let iterator = timeout(Duration::from_secs(5), request.send()).await;
        iterator.ok()?.ok()?.shard_iterator
    });
    let iterator = iterator.await;
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut throttled = 0;
    for _ in 0..POLLS {
        ticks.tick().await;
        let read = kinesis.get_records().shard_iterator(&iterator).send();
        if let Err(error) = read.await {
            let error = error.into_service_error();
            assert!(
                error.is_provisioned_throughput_exceeded_exception(),
                "{error:?}"
            );
            throttled += 1;
        }
    }
    throttled
}
