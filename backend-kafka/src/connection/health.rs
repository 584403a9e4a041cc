//! Which brokers a client reaches, and their latency.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use millstream_core::telemetry::event;

use super::statistics::{Source, State, Statistics};

/// The observed state of the brokers that a client knows, by their addresses.
///
/// A broker is reported *down* if the client wants a connection and has none at two checks in a row. A connection
/// that is just being made at one check is not reported. A broker is reported *up* when the client is connected again.
/// A connection that is not wanted, since the broker leads no partition or was idle for a long time, is reported as
/// neither.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<BTreeMap<String, Seen>>);

#[derive(Debug, Default)]
struct Seen {
    told_down: bool,
    /// Whether a connection was wanted and missing at the last check.
    tried: bool,
}

/// A change to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Down,
    Up,
}

impl Health {
    /// Reports the changes since the last check, and the measurements.
    pub(super) fn on_statistics(
        &self,
        statistics: &Statistics,
        group: Option<&str>,
        stream: Option<&str>,
    ) {
        let client = &*statistics.name;
        let brokers = by_address(statistics);
        for (broker, change) in self.changes(&brokers) {
            match change {
                Change::Down => event!(
                    warn,
                    "millstream.kafka.broker.down",
                    client,
                    group,
                    stream,
                    broker,
                    "a broker cannot be reached"
                ),
                Change::Up => event!(
                    info,
                    "millstream.kafka.broker.up",
                    client,
                    group,
                    stream,
                    broker,
                    "a broker is reached again"
                ),
            }
        }
        let in_state = |wanted| brokers.values().filter(|state| **state == wanted).count();
        event!(
            debug,
            "millstream.kafka.client.statistics",
            client,
            group,
            stream,
            brokers_up = in_state(State::Up),
            brokers_down = in_state(State::Trying),
            queued_records = statistics.queued_records,
            queued_bytes = statistics.queued_bytes,
            "statistics of a client"
        );
        for way in statistics.brokers.values() {
            // Other connections are not in use, and their values are zero.
            if way.state == State::Up && way.source != Source::Other {
                event!(
                    debug,
                    "millstream.kafka.broker.statistics",
                    client,
                    group,
                    stream,
                    broker = &*way.address,
                    rtt_p50_us = way.rtt.measured(|rtt| rtt.p50),
                    rtt_p99_us = way.rtt.measured(|rtt| rtt.p99),
                    throttle_max_ms = way.throttle.measured(|throttle| throttle.max),
                    requests_waiting = way.waiting,
                    requests_in_flight = way.in_flight,
                    requests_timed_out = way.timeouts,
                    "statistics of a broker"
                );
            }
        }
    }

    fn changes<'a>(&self, brokers: &Brokers<'a>) -> Vec<(&'a str, Change)> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::new();
        for (address, state) in brokers {
            let seen = known.entry((*address).to_owned()).or_default();
            let tried = std::mem::replace(&mut seen.tried, *state == State::Trying);
            let change = match state {
                State::Up if seen.told_down => Change::Up,
                State::Trying if tried && !seen.told_down => Change::Down,
                State::Up | State::Trying | State::Idle => continue,
            };
            seen.told_down = change == Change::Down;
            changes.push((*address, change));
        }
        changes
    }
}

/// The state of each broker, by its address.
type Brokers<'a> = BTreeMap<&'a str, State>;

/// Returns the state of each broker, by its address. A broker may be connected twice. The connection that carries
/// records counts. Only if that one is not wanted, the bootstrap connection counts.
fn by_address(statistics: &Statistics) -> Brokers<'_> {
    let mut brokers = Brokers::new();
    for source in [Source::Learned, Source::Configured] {
        let ways = statistics.brokers.values();
        for way in ways.filter(|way| way.source == source) {
            let state = brokers.entry(&way.address).or_insert(State::Idle);
            if *state == State::Idle {
                *state = way.state;
            }
        }
    }
    brokers
}

#[cfg(test)]
mod tests {
    use super::super::statistics::recorded::{MEMBER, PRODUCER_DOWN, PRODUCER_UP};
    use super::*;

    fn look(health: &Health, json: &[u8]) -> Vec<Change> {
        let statistics = Statistics::parse(json).unwrap();
        let changes = health.changes(&by_address(&statistics));
        changes.into_iter().map(|(_, change)| change).collect()
    }

    /// Returns a recording in which the first `count` occurrences of a state are replaced.
    fn with(json: &[u8], from: &str, to: &str, count: usize) -> Vec<u8> {
        let text = std::str::from_utf8(json).unwrap();
        assert!(text.matches(from).count() >= count);
        text.replacen(from, to, count).into_bytes()
    }

    #[test]
    fn a_change_is_told_once() {
        let health = Health::default();
        for (json, told) in [
            (PRODUCER_UP, None),
            // The connection may just be reconnecting.
            (PRODUCER_DOWN, None),
            (PRODUCER_UP, None),
            (PRODUCER_DOWN, None),
            // There are two connections, but it is one broker.
            (PRODUCER_DOWN, Some(Change::Down)),
            (PRODUCER_DOWN, None),
            (PRODUCER_UP, Some(Change::Up)),
            (PRODUCER_UP, None),
        ] {
            assert_eq!(look(&health, json), Vec::from_iter(told));
        }
    }

    #[test]
    fn a_broker_that_nobody_wants_is_neither() {
        let health = Health::default();
        let idle = with(PRODUCER_DOWN, "TRY_CONNECT", "INIT", 2);
        for json in [PRODUCER_UP, &idle, PRODUCER_DOWN, &idle, PRODUCER_DOWN] {
            assert_eq!(look(&health, json), []);
        }
        assert_eq!(look(&health, PRODUCER_DOWN), [Change::Down]);
        // It stays down until it is seen up.
        assert_eq!(look(&health, &idle), []);
        assert_eq!(look(&health, PRODUCER_UP), [Change::Up]);
    }

    #[test]
    fn the_way_that_records_go_is_what_counts() {
        let health = Health::default();
        // The first one in the recording is the bootstrap connection.
        let found = with(PRODUCER_DOWN, "TRY_CONNECT", "UP", 1);
        assert_eq!(look(&health, &found), []);
        assert_eq!(look(&health, &found), [Change::Down]);
        let not_wanted = with(&found, "TRY_CONNECT", "INIT", 1);
        assert_eq!(look(&health, &not_wanted), [Change::Up]);
    }

    #[test]
    fn a_coordinator_is_no_broker_of_its_own() {
        let statistics = Statistics::parse(MEMBER).unwrap();
        assert_eq!(statistics.brokers.len(), 2);
        let brokers = by_address(&statistics);
        assert_eq!(brokers.into_values().collect::<Vec<_>>(), [State::Up]);
    }
}
