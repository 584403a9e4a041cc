//! The librdkafka settings of a member's client.

use std::time::Duration;

use millstream_core::driver::JoinOptions;
use millstream_core::{Error, ErrorKind, Result};
use rdkafka::ClientConfig;

use crate::config::Protocol;
use crate::connection::{Connection, set_default};

/// The minimum of `max.poll.interval.ms`. Our thread polls all the time, whatever handlers do, so it does not limit
/// them. But the broker waits this long for members to join a rebalance, so it must be longer than a whole
/// drain.
const LEAST_POLL_INTERVAL: Duration = Duration::from_secs(45);

/// How much longer than a drain `max.poll.interval.ms` is.
const BEYOND_DRAIN: Duration = Duration::from_secs(30);

/// The maximum that librdkafka accepts for `max.poll.interval.ms`.
const LONGEST_POLL_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Rejects a drain timeout that the broker would not wait for.
pub(crate) fn check(join: &JoinOptions) -> Result<()> {
    let longest = LONGEST_POLL_INTERVAL - BEYOND_DRAIN;
    if join.drain <= longest {
        return Ok(());
    }
    let message = format!(
        "drain_timeout is {:?}, use at most {longest:?}: the broker waits no longer than a day \
         (`max.poll.interval.ms`) for a member that drains",
        join.drain
    );
    Err(Error::new(ErrorKind::Invalid, "join", message))
}

pub(crate) fn of_member(connection: &Connection, group: &str, join: &JoinOptions) -> ClientConfig {
    let config = &connection.config.consumer;
    let mut settings = connection.watched();
    for (key, value) in [
        // Back-pressure means not taking from the local queue. When that queue is full, librdkafka does not
        // fetch a partition for this long, 1 s by default.
        ("fetch.queue.backoff.ms", "2"),
        // The memory limit of records that wait before the SDK takes them.
        ("queued.max.messages.kbytes", "16384"),
        // How soon added and deleted partitions are noticed, 5 minutes by default.
        ("topic.metadata.refresh.interval.ms", "5000"),
        // The maximum delay before a broker that came back is tried again, 10 s by default.
        ("reconnect.backoff.max.ms", "1000"),
    ] {
        set_default(&mut settings, key, value);
    }
    settings
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // The SDK must report a position that is gone. librdkafka must not skip it.
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("allow.auto.create.topics", "false")
        .set(
            "max.poll.interval.ms",
            millis(poll_interval(join.drain, config.session_timeout)),
        );
    match config.protocol {
        Protocol::Cooperative => {
            settings
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", millis(config.session_timeout))
                .set("heartbeat.interval.ms", millis(config.heartbeat_interval()));
        }
        Protocol::Consumer => {
            settings.set("group.protocol", "consumer");
        }
    }
    if let Some(id) = &config.instance_id {
        settings.set("group.instance.id", id);
    }
    settings.set("client.id", client_id(connection, join));
    settings
}

/// Returns the client id that brokers show for all clients of a member.
pub(crate) fn client_id(connection: &Connection, join: &JoinOptions) -> String {
    let id = &connection.config.client_id;
    match &join.member {
        Some(member) => format!("{id}.{member}"),
        None => id.clone(),
    }
}

fn poll_interval(drain: Duration, session: Duration) -> Duration {
    (drain + BEYOND_DRAIN).max(LEAST_POLL_INTERVAL).max(session)
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_ends_well_before_the_broker_gives_the_member_up() {
        let second = Duration::from_secs(1);
        for drain in [0, 1, 14, 15, 16, 3_600, 86_370].map(|seconds| second * seconds) {
            for session in [second, 45 * second, 3_600 * second] {
                let interval = poll_interval(drain, session);
                let told = format!("a drain of {drain:?}, a session of {session:?}: {interval:?}");
                assert!(interval >= drain + BEYOND_DRAIN, "{told}");
                // librdkafka refuses it otherwise.
                assert!(interval >= session, "{told}");
                assert!(interval <= LONGEST_POLL_INTERVAL, "{told}");
            }
        }
    }
}
