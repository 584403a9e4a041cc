//! Events for `tracing`, with names that stay.
//!
//! Every step of a life cycle is one event. Its name is part of the public API, as its fields are:
//! dashboards and alerts are built on them. A subscriber's output shows fields and filters by target,
//! but does neither with a name; so the name is also the field `event`, and its part is the target.
//! Nothing is formatted or collected when nobody listens.
//!
//! This module is for the crates of this workspace. It is not part of the public API.

use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[doc(hidden)]
pub use tracing;

/// Emits an event by level, name and fields.
#[doc(hidden)]
#[macro_export]
macro_rules! __event {
    ($level:ident, $name:literal, $($fields:tt)+) => {
        $crate::telemetry::tracing::$level!(
            name: $name,
            target: $crate::telemetry::target($name),
            event = $name,
            $($fields)+
        )
    };
}

#[doc(inline)]
pub use __event as event;

/// Returns the target of an event: `millstream::kafka` for `millstream.kafka.broker.down`.
///
/// # Panics
/// For the name of an unknown part. It is called in constants only, so that such a name does not
/// compile.
pub const fn target(name: &str) -> &'static str {
    const PARTS: [(&str, &str); 7] = [
        ("millstream.consumer.", "millstream::consumer"),
        ("millstream.producer.", "millstream::producer"),
        ("millstream.kafka.", "millstream::kafka"),
        ("millstream.kinesis.", "millstream::kinesis"),
        ("millstream.memory.", "millstream::memory"),
        ("millstream.settings.", "millstream::settings"),
        ("millstream.shutdown.", "millstream::shutdown"),
    ];
    let mut index = 0;
    while index < PARTS.len() {
        let (prefix, target) = PARTS[index];
        if starts_with(name.as_bytes(), prefix.as_bytes()) {
            return target;
        }
        index += 1;
    }
    panic!("an event's name begins with millstream and a part of the SDK");
}

const fn starts_with(text: &[u8], prefix: &[u8]) -> bool {
    let mut index = 0;
    while index < prefix.len() {
        if index >= text.len() || text[index] != prefix[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// An error with its whole chain of causes.
///
/// The text of an error is the application's code: where it panics, that is what is printed.
#[derive(Debug)]
pub struct Causes<'a>(pub &'a (dyn StdError + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chain = text(|| self.0.to_string());
        let mut cause = source(self.0);
        while let Some(error) = cause {
            let next = text(|| error.to_string());
            // Some errors print their causes themselves.
            if !chain.contains(&next) {
                chain = format!("{chain}: {next}");
            }
            cause = source(error);
        }
        f.write_str(&chain)
    }
}

fn text(print: impl FnOnce() -> String) -> String {
    catch_unwind(AssertUnwindSafe(print)).unwrap_or_else(|_| "printing the error panicked".into())
}

fn source<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    catch_unwind(AssertUnwindSafe(|| error.source())).unwrap_or_default()
}
