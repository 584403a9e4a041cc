//! The report of a vehicle.

use std::fmt;
use std::time::UNIX_EPOCH;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// A cleaned report. Fields that are missing or invalid in the raw report are `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Event {
    #[serde(deserialize_with = "name")]
    pub(crate) vehicle_id: String,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "text")]
    pub(crate) event_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number")]
    pub(crate) latitude: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number")]
    pub(crate) longitude: Option<f64>,
    /// Feet.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number")]
    pub(crate) altitude: Option<f64>,
    /// Knots.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number")]
    pub(crate) speed: Option<f64>,
    /// Degrees.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number")]
    pub(crate) heading: Option<f64>,
    /// Seconds since 1970 in a cleaned report.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "time")]
    pub(crate) timestamp: Option<u64>,
}

impl Event {
    /// Cleans a raw report of `vehicle`.
    pub(crate) fn clean(vehicle: &str, raw: &[u8]) -> serde_json::Result<Self> {
        let mut event: Self = serde_json::from_slice(raw)?;
        event.vehicle_id = vehicle.to_owned();
        event.latitude = event.latitude.filter(|degrees| degrees.abs() <= 90.0);
        event.longitude = event.longitude.filter(|degrees| degrees.abs() <= 180.0);
        event.speed = event.speed.filter(|knots| *knots >= 0.0);
        event.heading = event.heading.map(|degrees| degrees.rem_euclid(360.0));
        Ok(event)
    }

    pub(crate) fn parse(payload: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(payload)
    }

    pub(crate) fn place(&self) -> Option<(f64, f64)> {
        self.latitude.zip(self.longitude)
    }

    pub(crate) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
}

/// The value of a field. Lists and objects are not used.
enum Scalar {
    Number(f64),
    Text(String),
    Nothing,
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value as f64))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value as f64))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(value.to_owned()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Scalar, E> {
        Ok(Scalar::Nothing)
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
        Ok(Scalar::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nothing)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nothing)
    }
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Ok(match deserializer.deserialize_any(ScalarVisitor)? {
        Scalar::Number(value) => Some(value),
        _ => None,
    })
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match deserializer.deserialize_any(ScalarVisitor)? {
        Scalar::Text(value) => Some(value),
        _ => None,
    })
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(text(deserializer)?.unwrap_or_default())
}

/// RFC 3339 in a raw report, seconds in a cleaned one.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(match deserializer.deserialize_any(ScalarVisitor)? {
        Scalar::Number(seconds) if seconds >= 0.0 => Some(seconds as u64),
        Scalar::Text(text) => humantime::parse_rfc3339_weak(&text)
            .ok()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
            .map(|since| since.as_secs()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_cleaned_and_survives_the_way() {
        let raw = br#"{"vehicleId":" 4067f2","eventType":"locationUpdated","latitude":46.5,"longitude":10,
            "altitude":null,"speed":438.1,"heading":-10.0,"timestamp":"2018-08-01T05:00:00Z","more":[1,{}]}"#;
        let event = Event::clean("4067f2", raw).unwrap();
        assert_eq!(event.vehicle_id, "4067f2");
        assert_eq!(event.place(), Some((46.5, 10.0)));
        assert_eq!(event.altitude, None);
        assert_eq!(event.heading, Some(350.0));
        assert_eq!(event.timestamp, Some(1_533_099_600));
        assert_eq!(Event::parse(&event.to_json().unwrap()).unwrap(), event);
    }

    #[test]
    fn what_makes_no_sense_is_unset() {
        let raw = br#"{"vehicleId":7,"latitude":"north","longitude":1000.5,"speed":-3,"timestamp":"soon","altitude":[1],"eventType":{}}"#;
        let event = Event::clean("7", raw).unwrap();
        let nothing = Event {
            vehicle_id: "7".into(),
            ..Event::default()
        };
        assert_eq!(event, nothing);
    }

    #[test]
    fn what_is_no_single_report_is_refused() {
        for raw in ["7", "{", r#"{"speed":1,"speed":2}"#, r#"{"speed":1e999}"#] {
            assert!(Event::clean("7", raw.as_bytes()).is_err(), "{raw}");
        }
    }
}
