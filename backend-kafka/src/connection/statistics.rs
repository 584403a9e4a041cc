//! The part of a librdkafka client's statistics that is used here.
//!
//! The full statistics are about 700 bytes of JSON for each partition, most of which is not used. Fields that are
//! not named here are skipped and not kept.
//!
//! Meaning of each field: <https://github.com/confluentinc/librdkafka/blob/v2.12.1/STATISTICS.md>

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

/// The statistics of one client.
#[derive(Debug, Deserialize)]
pub(crate) struct Statistics {
    /// librdkafka's name of the client. It is unique within the process.
    pub(super) name: String,
    /// Records that wait to be sent, or for a response.
    #[serde(rename = "msg_cnt")]
    pub(super) queued_records: u64,
    /// Their bytes.
    #[serde(rename = "msg_size")]
    pub(super) queued_bytes: u64,
    pub(super) brokers: BTreeMap<String, Broker>,
    topics: BTreeMap<String, Topic>,
}

/// One connection to a broker. A broker may have several: one for its id, and its bootstrap connections.
#[derive(Debug, Deserialize)]
pub(super) struct Broker {
    /// `host:port`.
    #[serde(rename = "nodename")]
    pub(super) address: String,
    pub(super) source: Source,
    pub(super) state: State,
    /// Requests that wait to be sent. librdkafka's counters of requests are signed.
    #[serde(rename = "outbuf_cnt")]
    pub(super) waiting: i64,
    /// Requests that wait for their responses.
    #[serde(rename = "waitresp_cnt")]
    pub(super) in_flight: i64,
    /// Requests that timed out.
    #[serde(rename = "req_timeouts")]
    pub(super) timeouts: u64,
    /// The time from a request to its response, in microseconds.
    pub(super) rtt: Window,
    /// How long the broker throttled this client, in milliseconds.
    pub(super) throttle: Window,
}

/// The origin of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Source {
    /// One of `brokers`.
    Configured,
    /// Reported by the cluster.
    Learned,
    /// A second connection to a broker for one purpose, or an entry without a broker: the coordinator's, or the
    /// client's own.
    #[serde(other)]
    Other,
}

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum State {
    /// Not wanted at the moment.
    #[serde(rename = "INIT")]
    Idle,
    #[serde(rename = "UP", alias = "REAUTH")]
    Up,
    /// Wanted, and not connected: broken, being made, logging in.
    #[serde(other)]
    Trying,
}

/// The measurements of the last interval.
#[derive(Debug, Deserialize)]
pub(super) struct Window {
    #[serde(rename = "cnt")]
    count: u64,
    pub(super) p50: i64,
    pub(super) p99: i64,
    pub(super) max: i64,
}

#[derive(Debug, Deserialize)]
struct Topic {
    /// Partitions by number; -1 stands for records whose partition is not chosen yet.
    partitions: BTreeMap<i32, Partition>,
}

#[derive(Debug, Deserialize)]
struct Partition {
    /// The leader; -1 if there is none, or if the client does not know it yet.
    leader: i32,
    lo_offset: i64,
    ls_offset: i64,
    hi_offset: i64,
}

/// The begin and end offsets of a partition, as of the last fetch. Below 0 before the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The oldest record that is left.
    pub(crate) low: i64,
    /// After the last record that readers of committed records may see: the *last stable offset*.
    pub(crate) end: i64,
    /// After the last record, also those of open transactions: the *high watermark*.
    pub(crate) high: i64,
}

impl Window {
    /// Returns a measured value, if anything was measured.
    pub(super) fn measured(&self, value: impl FnOnce(&Self) -> i64) -> Option<i64> {
        (self.count > 0).then(|| value(self))
    }
}

impl Statistics {
    pub(super) fn parse(json: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }

    /// Returns whether any broker has accepted the client.
    pub(super) fn is_logged_in(&self) -> bool {
        self.brokers.values().any(|way| way.state == State::Up)
    }

    /// Returns the bounds of the partitions that have a leader, and were fetched at least once.
    pub(crate) fn bounds(&self) -> impl Iterator<Item = ((Arc<str>, i32), Bounds)> {
        let partitions = self.partitions();
        let fetched = partitions.filter(|(_, it)| it.leader >= 0 && it.ls_offset >= 0);
        fetched.map(|(name, it)| {
            let bounds = Bounds {
                low: it.lo_offset,
                end: it.ls_offset,
                high: it.hi_offset,
            };
            (name, bounds)
        })
    }

    /// Returns the leader of each partition. `None` if there is none.
    pub(crate) fn leaders(&self) -> impl Iterator<Item = ((Arc<str>, i32), Option<i32>)> {
        let partitions = self.partitions();
        partitions.map(|(name, it)| (name, Some(it.leader).filter(|leader| *leader >= 0)))
    }

    fn partitions(&self) -> impl Iterator<Item = ((Arc<str>, i32), &Partition)> {
        self.topics.iter().flat_map(|(name, topic)| {
            let name: Arc<str> = name.as_str().into();
            let partitions = topic.partitions.range(0..);
            partitions.map(move |(number, it)| ((name.clone(), *number), it))
        })
    }
}

/// Recorded from librdkafka 2.12.1 with Apache Kafka 4.1.1.
#[cfg(test)]
pub(super) mod recorded {
    /// A member that reads a partition of the topic `stuck`, which has 20 records.
    pub(in super::super) const MEMBER: &[u8] = include_bytes!("recorded/member.json");
    /// A producer with one record in flight.
    pub(in super::super) const PRODUCER_UP: &[u8] = include_bytes!("recorded/producer_up.json");
    /// The same producer later, after its broker was killed.
    pub(in super::super) const PRODUCER_DOWN: &[u8] = include_bytes!("recorded/producer_down.json");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &[u8]) -> Statistics {
        Statistics::parse(json).unwrap()
    }

    #[test]
    fn a_members_partitions_are_read() {
        let member = parse(recorded::MEMBER);
        let bounds: Vec<_> = member.bounds().collect();
        // The entry for no partition was never fetched.
        let expected = Bounds {
            low: 0,
            end: 20,
            high: 20,
        };
        assert_eq!(bounds, [(("stuck".into(), 0), expected)]);
    }

    #[test]
    fn a_producers_queue_and_brokers_are_read() {
        let up = parse(recorded::PRODUCER_UP);
        assert_eq!((up.queued_records, up.queued_bytes), (1, 1));
        assert_eq!(up.bounds().count(), 0);
        let [broker] = up.brokers.values().collect::<Vec<_>>()[..] else {
            panic!("{up:?}")
        };
        assert_eq!((broker.source, broker.state), (Source::Learned, State::Up));
        assert!(broker.address.starts_with("127.0.0.1:"), "{broker:?}");

        let down = parse(recorded::PRODUCER_DOWN);
        assert_eq!(down.queued_records, 1);
        assert!(down.brokers.values().all(|b| b.state == State::Trying));
        let sources = down.brokers.values().map(|broker| broker.source);
        let sources: Vec<_> = sources.collect();
        assert_eq!(sources, [Source::Learned, Source::Configured]);
    }

    #[test]
    fn a_round_trip_is_in_microseconds() {
        let member = parse(recorded::MEMBER);
        let broker = member.brokers.values().find(|b| b.state == State::Up);
        let rtt = &broker.unwrap().rtt;
        assert!(0 < rtt.p50 && rtt.p50 <= rtt.p99, "{rtt:?}");
    }
}
