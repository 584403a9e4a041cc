//! The alert rules: pure functions over the reports of vehicles.

use serde::{Deserialize, Serialize};

use crate::event::Event;

/// A monitored area: a circle around a position.
struct Zone {
    name: &'static str,
    latitude: f64,
    longitude: f64,
    kilometres: f64,
}

/// The airports of the sample's region.
const ZONES: [Zone; 3] = [
    Zone {
        name: "Zurich",
        latitude: 47.458,
        longitude: 8.548,
        kilometres: 15.0,
    },
    Zone {
        name: "Geneva",
        latitude: 46.238,
        longitude: 6.109,
        kilometres: 15.0,
    },
    Zone {
        name: "Basel",
        latitude: 47.590,
        longitude: 7.529,
        kilometres: 15.0,
    },
];

/// Feet per minute.
const SUDDEN_CLIMB: f64 = 2_500.0;

/// Knots per minute.
const SUDDEN_SPEED: f64 = 45.0;

/// Reports that are further apart than this many seconds are not compared for sudden changes.
const COMPARABLE: u64 = 120;

/// A vehicle without a report for this many seconds has gone silent.
pub(crate) const SILENCE: u64 = 600;

/// The reason for an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "alert", rename_all = "camelCase")]
pub(crate) enum Alert {
    #[serde(rename_all = "camelCase")]
    EnteredZone { vehicle_id: String, zone: String },
    #[serde(rename_all = "camelCase")]
    SuddenAltitude {
        vehicle_id: String,
        feet_per_minute: i64,
    },
    #[serde(rename_all = "camelCase")]
    SuddenSpeed {
        vehicle_id: String,
        knots_per_minute: i64,
    },
    #[serde(rename_all = "camelCase")]
    GoneSilent { vehicle_id: String, last_seen: u64 },
}

impl Alert {
    pub(crate) fn vehicle(&self) -> &str {
        match self {
            Self::EnteredZone { vehicle_id, .. }
            | Self::SuddenAltitude { vehicle_id, .. }
            | Self::SuddenSpeed { vehicle_id, .. }
            | Self::GoneSilent { vehicle_id, .. } => vehicle_id,
        }
    }
}

/// Returns the alerts that the step from `before` to `now`, two reports of one vehicle, raises.
pub(crate) fn compare(before: &Event, now: &Event) -> Vec<Alert> {
    let vehicle_id = || now.vehicle_id.clone();
    let mut alerts = Vec::new();
    if let Some((from, to)) = before.place().zip(now.place()) {
        let entered = ZONES
            .iter()
            .filter(|zone| !zone.holds(from) && zone.holds(to));
        alerts.extend(entered.map(|zone| Alert::EnteredZone {
            vehicle_id: vehicle_id(),
            zone: zone.name.into(),
        }));
    }
    let Some(minutes) = minutes_between(before, now) else {
        return alerts;
    };
    let change = |from: Option<f64>, to: Option<f64>| Some((to? - from?) / minutes);
    if let Some(rate) = change(before.altitude, now.altitude).filter(|r| r.abs() > SUDDEN_CLIMB) {
        alerts.push(Alert::SuddenAltitude {
            vehicle_id: vehicle_id(),
            feet_per_minute: rate.round() as i64,
        });
    }
    if let Some(rate) = change(before.speed, now.speed).filter(|r| r.abs() > SUDDEN_SPEED) {
        alerts.push(Alert::SuddenSpeed {
            vehicle_id: vehicle_id(),
            knots_per_minute: rate.round() as i64,
        });
    }
    alerts
}

fn minutes_between(before: &Event, now: &Event) -> Option<f64> {
    let seconds = now.timestamp?.checked_sub(before.timestamp?)?;
    (1..=COMPARABLE)
        .contains(&seconds)
        .then_some(seconds as f64 / 60.0)
}

impl Zone {
    /// Returns whether the area contains a position. Computed on a plane, which is accurate enough for a few
    /// kilometres.
    fn holds(&self, (latitude, longitude): (f64, f64)) -> bool {
        const KILOMETRES_PER_DEGREE: f64 = 111.2;
        let north = (latitude - self.latitude) * KILOMETRES_PER_DEGREE;
        let east =
            (longitude - self.longitude) * KILOMETRES_PER_DEGREE * self.latitude.to_radians().cos();
        north.hypot(east) <= self.kilometres
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(timestamp: u64, altitude: f64, speed: f64, place: (f64, f64)) -> Event {
        Event {
            vehicle_id: "v".into(),
            timestamp: Some(timestamp),
            altitude: Some(altitude),
            speed: Some(speed),
            latitude: Some(place.0),
            longitude: Some(place.1),
            ..Event::default()
        }
    }

    const FAR: (f64, f64) = (46.8, 9.8);
    const ZURICH: (f64, f64) = (47.46, 8.55);

    #[test]
    fn an_ordinary_step_gives_rise_to_nothing() {
        let (before, now) = (
            event(0, 9_000.0, 300.0, FAR),
            event(10, 9_200.0, 305.0, FAR),
        );
        assert_eq!(compare(&before, &now), []);
    }

    #[test]
    fn entering_a_zone_raises_one_alert() {
        let (out, inside) = (event(0, 9e3, 3e2, FAR), event(10, 9e3, 3e2, ZURICH));
        let alert = Alert::EnteredZone {
            vehicle_id: "v".into(),
            zone: "Zurich".into(),
        };
        assert_eq!(compare(&out, &inside), [alert]);
        assert_eq!(compare(&inside, &inside), []);
        assert_eq!(compare(&inside, &out), []);
    }

    #[test]
    fn sudden_changes_are_raised_with_their_rate() {
        let (before, now) = (
            event(0, 9_000.0, 300.0, FAR),
            event(30, 7_000.0, 340.0, FAR),
        );
        let altitude = Alert::SuddenAltitude {
            vehicle_id: "v".into(),
            feet_per_minute: -4_000,
        };
        let speed = Alert::SuddenSpeed {
            vehicle_id: "v".into(),
            knots_per_minute: 80,
        };
        assert_eq!(compare(&before, &now), [altitude, speed]);
    }

    #[test]
    fn reports_that_cannot_be_compared_give_rise_to_nothing() {
        let before = event(1_000, 9_000.0, 300.0, FAR);
        for timestamp in [1_000, 999, 1_121] {
            assert_eq!(compare(&before, &event(timestamp, 0.0, 0.0, FAR)), []);
        }
        let nothing_known = Event::default();
        assert_eq!(compare(&before, &nothing_known), []);
        assert_eq!(compare(&nothing_known, &before), []);
    }
}
