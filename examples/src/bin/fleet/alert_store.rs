//! State of the alerting service: the last report of each vehicle, and the alerts of each report.
//!
//! A stand-in for the team's database. A report may be delivered again after a crash. The store then
//! returns the same alerts as the first time, so that an alert that was raised but not sent before
//! the crash is not lost.

use std::collections::{HashMap, VecDeque};

use millstream::Partition;

use crate::alerts::{Alert, SILENCE, compare};
use crate::event::Event;
use crate::sent_log::SentLog;
use crate::tag::Tag;

/// Window and poll size of the upstream pipelines. They bound how far other vehicles of a
/// partition can overtake one.
pub(crate) const WINDOW: usize = 100;

/// After this many later reports, a report can no longer be overtaken: two pipelines, each with its
/// window, one poll that exceeds it, and one poll in flight.
const REORDER_BOUND: usize = 2 * 3 * WINDOW;

/// Vehicles by partition, and the alerts that were raised.
#[derive(Debug, Default)]
pub(crate) struct AlertStore {
    /// Each partition has its own clock: a partition that waits for a new owner must not make the vehicles of
    /// another one look silent.
    partitions: HashMap<Partition, Vehicles>,
    /// The alerts by report, for reports that raised any.
    raised: HashMap<(Box<str>, u64), Vec<RaisedAlert>>,
}

/// An alert with its sequence number in its lane.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RaisedAlert {
    /// The vehicle of the alert, and the vehicle whose report raised it: reports of different
    /// vehicles have no order among each other.
    pub(crate) lane: String,
    pub(crate) seq: u64,
    pub(crate) alert: Alert,
}

#[derive(Debug, Default)]
struct Vehicles {
    known: HashMap<Box<str>, Vehicle>,
    /// The times of the last reports. The clock lags behind them: vehicles are handled concurrently,
    /// and one whose next report is queued is not silent.
    recent: VecDeque<u64>,
    /// No report is missing up to this time.
    clock: u64,
    /// The time of the last search for silent vehicles.
    searched: u64,
}

#[derive(Debug)]
struct Vehicle {
    seq: u64,
    last: Event,
    silent: bool,
}

impl AlertStore {
    /// Records a report and returns the alerts that it raises, numbered by `alerts`. Returns the same
    /// alerts when the report is delivered again.
    pub(crate) fn observe(
        &mut self,
        partition: &Partition,
        tag: Tag<'_>,
        event: Event,
        alerts: &SentLog,
    ) -> Vec<RaisedAlert> {
        let Some(found) = self.vehicles(partition).observe(tag, event) else {
            let report = (tag.lane.into(), tag.seq);
            return self.raised.get(&report).cloned().unwrap_or_default();
        };
        if found.is_empty() {
            return Vec::new();
        }
        let number = |alert: Alert| {
            let lane = format!("{}<{}", alert.vehicle(), tag.lane);
            let seq = alerts.next(&lane);
            RaisedAlert { lane, seq, alert }
        };
        let raised: Vec<_> = found.into_iter().map(number).collect();
        self.raised
            .insert((tag.lane.into(), tag.seq), raised.clone());
        raised
    }

    /// Records that a vehicle signs off: its next report is not compared with an earlier one, and it is not silent.
    pub(crate) fn sign_off(&mut self, partition: &Partition, tag: Tag<'_>) {
        self.vehicles(partition).sign_off(tag);
    }

    fn vehicles(&mut self, partition: &Partition) -> &mut Vehicles {
        self.partitions.entry(partition.clone()).or_default()
    }
}

impl Vehicles {
    /// Returns `None` for a report that was recorded before.
    fn observe(&mut self, tag: Tag<'_>, event: Event) -> Option<Vec<Alert>> {
        let now = event.timestamp;
        let mut found = Vec::new();
        match self.known.get_mut(tag.lane) {
            Some(vehicle) if tag.seq <= vehicle.seq => return None,
            Some(vehicle) => {
                found = compare(&vehicle.last, &event);
                *vehicle = Vehicle::new(tag.seq, event);
            }
            None => {
                self.known
                    .insert(tag.lane.into(), Vehicle::new(tag.seq, event));
            }
        }
        self.recent.extend(now);
        if self.recent.len() > REORDER_BOUND {
            self.clock = self
                .recent
                .pop_front()
                .max(Some(self.clock))
                .unwrap_or_default();
        }
        if self.clock >= self.searched + SILENCE / 10 {
            self.searched = self.clock;
            found.extend(self.search_silent());
        }
        Some(found)
    }

    fn sign_off(&mut self, tag: Tag<'_>) {
        let signed_off = Vehicle {
            silent: true,
            ..Vehicle::new(tag.seq, Event::default())
        };
        match self.known.get_mut(tag.lane) {
            Some(vehicle) if tag.seq <= vehicle.seq => {}
            Some(vehicle) => *vehicle = signed_off,
            None => {
                self.known.insert(tag.lane.into(), signed_off);
            }
        }
    }

    fn search_silent(&mut self) -> Vec<Alert> {
        let mut silent = Vec::new();
        for vehicle in self.known.values_mut().filter(|vehicle| !vehicle.silent) {
            let Some(last_seen) = vehicle.last.timestamp else {
                continue;
            };
            if self.clock.saturating_sub(last_seen) > SILENCE {
                vehicle.silent = true;
                let vehicle_id = vehicle.last.vehicle_id.clone();
                silent.push(Alert::GoneSilent {
                    vehicle_id,
                    last_seen,
                });
            }
        }
        // The map has no order; the alerts must have one.
        silent.sort_by(|a, b| a.vehicle().cmp(b.vehicle()));
        silent
    }
}

impl Vehicle {
    fn new(seq: u64, last: Event) -> Self {
        Self {
            seq,
            last,
            silent: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Fixture {
        alert_store: AlertStore,
        alerts: SentLog,
    }

    impl Fixture {
        fn report(
            &mut self,
            partition: &str,
            vehicle: &str,
            seq: u64,
            at: u64,
            feet: f64,
        ) -> Vec<RaisedAlert> {
            let event = Event {
                vehicle_id: vehicle.into(),
                timestamp: Some(at),
                altitude: Some(feet),
                ..Event::default()
            };
            let tag = Tag { lane: vehicle, seq };
            self.alert_store
                .observe(&Partition::new("s", partition), tag, event, &self.alerts)
        }
    }

    #[test]
    fn a_report_that_is_delivered_again_raises_the_same_alerts() {
        let mut fixture = Fixture::default();
        assert_eq!(fixture.report("0", "a", 1, 1_000, 0.0), []);
        let first = fixture.report("0", "a", 2, 1_060, 5_000.0);
        assert_eq!(first.len(), 1);
        assert_eq!((first[0].lane.as_str(), first[0].seq), ("a<a", 1));
        assert_eq!(fixture.report("0", "a", 3, 1_070, 5_000.0), []);

        assert_eq!(fixture.report("0", "a", 1, 1_000, 0.0), []);
        assert_eq!(fixture.report("0", "a", 2, 1_060, 5_000.0), first);
        assert_eq!(fixture.alerts.expected(), 1);
    }

    /// Vehicle `b` reports so often that no earlier report can be missing.
    fn pass_time(fixture: &mut Fixture, seq: &mut u64, at: u64) -> Vec<RaisedAlert> {
        let reports = 0..=REORDER_BOUND;
        reports
            .flat_map(|_| {
                *seq += 1;
                fixture.report("0", "b", *seq, at, 0.0)
            })
            .collect()
    }

    #[test]
    fn silence_is_raised_once_by_whichever_vehicle_shows_it() {
        let (mut fixture, mut seq) = (Fixture::default(), 0);
        fixture.report("0", "a", 1, 1_000, 0.0);
        assert_eq!(pass_time(&mut fixture, &mut seq, 1_500), []);
        let found = pass_time(&mut fixture, &mut seq, 1_601);
        let silent = Alert::GoneSilent {
            vehicle_id: "a".into(),
            last_seen: 1_000,
        };
        let alert = RaisedAlert {
            lane: "a<b".into(),
            seq: 1,
            alert: silent,
        };
        assert_eq!(found, [alert]);
        assert_eq!(pass_time(&mut fixture, &mut seq, 1_700), []);

        fixture.report("0", "a", 2, 1_710, 0.0);
        let again = pass_time(&mut fixture, &mut seq, 2_400);
        assert_eq!(again.len(), 1, "back, and silent again");
    }

    #[test]
    fn a_vehicle_that_is_overtaken_is_not_silent() {
        let mut fixture = Fixture::default();
        fixture.report("0", "a", 1, 1_000, 0.0);
        for seq in 1..REORDER_BOUND as u64 {
            let at = 1_000 + 10 * seq;
            assert_eq!(fixture.report("0", "b", seq, at, 0.0), []);
        }
    }

    #[test]
    fn a_vehicle_that_signed_off_is_neither_silent_nor_compared() {
        let (mut fixture, mut seq) = (Fixture::default(), 0);
        fixture.report("0", "a", 1, 1_000, 0.0);
        let tag = Tag { lane: "a", seq: 2 };
        fixture.alert_store.sign_off(&Partition::new("s", "0"), tag);
        assert_eq!(pass_time(&mut fixture, &mut seq, 1_700), []);
        assert_eq!(fixture.report("0", "a", 3, 1_710, 9_000.0), []);
        assert_eq!(fixture.report("0", "a", 1, 1_000, 0.0), [], "known");
    }

    #[test]
    fn a_partition_has_its_own_clock() {
        let (mut fixture, mut seq) = (Fixture::default(), 0);
        fixture.report("1", "a", 1, 1_000, 0.0);
        assert_eq!(pass_time(&mut fixture, &mut seq, 9_000), []);
    }
}
