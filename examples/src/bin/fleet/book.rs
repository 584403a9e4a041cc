//! What the alerting service remembers of each vehicle, and which alerts it has answered to which
//! report.
//!
//! It stands for the team's database. A report may come again after a crash, when it is no longer
//! news: the book then gives the same answer as the first time, so that an alert that was found but
//! not sent before the crash is not lost.

use std::collections::{HashMap, VecDeque};

use millstream::Partition;

use crate::alerts::{Alert, SILENCE, compare};
use crate::event::Event;
use crate::ledger::Ledger;
use crate::tag::Tag;

/// The window and the fetch of the chains up to here: together they bound how far a vehicle can be
/// overtaken by others of its partition.
pub(crate) const WINDOW: usize = 100;

/// A report is surely not overtaken any more when so many later ones were taken in: two chains,
/// each with its window, and a fetch that passes it and one that is under way.
const SURE: usize = 2 * 3 * WINDOW;

/// Remembers vehicles and answers.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// By partition, since each has its own place in time: one that waits for a new owner must not
    /// make the vehicles of another look silent.
    partitions: HashMap<Partition, Vehicles>,
    /// Only for reports that gave rise to an alert.
    answers: HashMap<(Box<str>, u64), Vec<Answer>>,
}

/// An alert with the number that it has in its lane.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// The vehicle that it is about, and the one whose report gave rise to it: reports of different
    /// vehicles have no order among themselves.
    pub(crate) lane: String,
    pub(crate) seq: u64,
    pub(crate) alert: Alert,
}

#[derive(Debug, Default)]
struct Vehicles {
    known: HashMap<Box<str>, Vehicle>,
    /// The times of the last reports. The clock follows behind them: vehicles are handled at the
    /// same time, and one whose next report waits its turn is not silent.
    recent: VecDeque<u64>,
    /// Up to here no report is missing.
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

impl Book {
    /// Takes in a report and answers with the alerts that it gives rise to, numbered by `alerts`;
    /// the same ones whenever the report comes again.
    pub(crate) fn observe(
        &mut self,
        partition: &Partition,
        tag: Tag<'_>,
        event: Event,
        alerts: &Ledger,
    ) -> Vec<Answer> {
        let vehicles = match self.partitions.get_mut(partition) {
            Some(vehicles) => vehicles,
            None => self.partitions.entry(partition.clone()).or_default(),
        };
        let Some(found) = vehicles.observe(tag, event) else {
            let report = (tag.lane.into(), tag.seq);
            return self.answers.get(&report).cloned().unwrap_or_default();
        };
        if found.is_empty() {
            return Vec::new();
        }
        let answer = |alert: Alert| {
            let lane = format!("{}<{}", alert.vehicle(), tag.lane);
            let seq = alerts.next(&lane);
            Answer { lane, seq, alert }
        };
        let answers: Vec<_> = found.into_iter().map(answer).collect();
        self.answers
            .insert((tag.lane.into(), tag.seq), answers.clone());
        answers
    }
}

impl Vehicles {
    /// `None` if the report was taken in before.
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
        if self.recent.len() > SURE {
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
        // The map has no order of its own; the answers have.
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
        book: Book,
        alerts: Ledger,
    }

    impl Fixture {
        fn report(
            &mut self,
            partition: &str,
            vehicle: &str,
            seq: u64,
            at: u64,
            feet: f64,
        ) -> Vec<Answer> {
            let event = Event {
                vehicle_id: vehicle.into(),
                timestamp: Some(at),
                altitude: Some(feet),
                ..Event::default()
            };
            let tag = Tag { lane: vehicle, seq };
            self.book
                .observe(&Partition::new("s", partition), tag, event, &self.alerts)
        }
    }

    #[test]
    fn a_report_that_comes_again_gets_the_same_answer() {
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

    /// Vehicle `b` reports so often that nothing before can be missing.
    fn pass_time(fixture: &mut Fixture, seq: &mut u64, at: u64) -> Vec<Answer> {
        let reports = 0..=SURE;
        reports
            .flat_map(|_| {
                *seq += 1;
                fixture.report("0", "b", *seq, at, 0.0)
            })
            .collect()
    }

    #[test]
    fn silence_is_told_once_by_whichever_vehicle_shows_it() {
        let (mut fixture, mut seq) = (Fixture::default(), 0);
        fixture.report("0", "a", 1, 1_000, 0.0);
        assert_eq!(pass_time(&mut fixture, &mut seq, 1_500), []);
        let found = pass_time(&mut fixture, &mut seq, 1_601);
        let silent = Alert::GoneSilent {
            vehicle_id: "a".into(),
            last_seen: 1_000,
        };
        let answer = Answer {
            lane: "a<b".into(),
            seq: 1,
            alert: silent,
        };
        assert_eq!(found, [answer]);
        assert_eq!(pass_time(&mut fixture, &mut seq, 1_700), []);

        fixture.report("0", "a", 2, 1_710, 0.0);
        let again = pass_time(&mut fixture, &mut seq, 2_400);
        assert_eq!(again.len(), 1, "back, and silent again");
    }

    #[test]
    fn a_vehicle_that_is_overtaken_is_not_silent() {
        let mut fixture = Fixture::default();
        fixture.report("0", "a", 1, 1_000, 0.0);
        for seq in 1..SURE as u64 {
            let at = 1_000 + 10 * seq;
            assert_eq!(fixture.report("0", "b", seq, at, 0.0), []);
        }
    }

    #[test]
    fn a_partition_has_its_own_clock() {
        let (mut fixture, mut seq) = (Fixture::default(), 0);
        fixture.report("1", "a", 1, 1_000, 0.0);
        assert_eq!(pass_time(&mut fixture, &mut seq, 9_000), []);
    }
}
