//! Events for `tracing`, with stable names.
//!
//! Every step of a life cycle is one event. Its name and its fields are part of the public API:
//! dashboards and alerts are built on them. A subscriber's output shows fields and filters by target,
//! but does neither with a name. So the name is also the field `event`, and its part is the target.
//! Nothing is formatted or collected without a subscriber.
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
            target: {
                const TARGET: [u8; $crate::telemetry::target_len($name)] =
                    $crate::telemetry::target($name);
                $crate::telemetry::target_text(&TARGET)
            },
            event = $name,
            $($fields)+
        )
    };
}

#[doc(inline)]
pub use __event as event;

/// The prefix of event targets, in place of `millstream.` in event names.
const ROOT: &str = "millstream::";

/// Returns the target of an event: `millstream::consumer` for `millstream.consumer.joined`. `LEN` is
/// its [`target_len`].
pub const fn target<const LEN: usize>(name: &str) -> [u8; LEN] {
    let mut target = [0; LEN];
    let mut index = 0;
    while index < LEN {
        target[index] = match index < ROOT.len() {
            true => ROOT.as_bytes()[index],
            // The name has one byte less before its part.
            false => name.as_bytes()[index - 1],
        };
        index += 1;
    }
    target
}

/// Returns the length of the target of an event.
///
/// # Panics
/// For a name that does not consist of `millstream`, a part and an event. It is only called in
/// constants, so such a name does not compile.
pub const fn target_len(name: &str) -> usize {
    const PREFIX: &[u8] = b"millstream.";
    let name = name.as_bytes();
    let mut index = 0;
    while index < name.len() && index < PREFIX.len() && name[index] == PREFIX[index] {
        index += 1;
    }
    assert!(
        index == PREFIX.len(),
        "an event's name begins with `millstream.`"
    );
    while index < name.len() && name[index] != b'.' {
        index += 1;
    }
    assert!(
        index > PREFIX.len() && index + 1 < name.len(),
        "an event's name has a part and what has happened after `millstream.`"
    );
    index + 1
}

/// Returns a target as text.
pub const fn target_text(target: &'static [u8]) -> &'static str {
    match std::str::from_utf8(target) {
        Ok(text) => text,
        Err(_) => panic!("the name of an event's part is ASCII"),
    }
}

/// Displays an error with its whole chain of causes.
///
/// The text of an error is application code: if it panics, that fact is printed instead.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_of_an_event_is_its_part() {
        const NAME: &str = "millstream.any_part.what.happened";
        const TARGET: [u8; target_len(NAME)] = target(NAME);
        assert_eq!(target_text(&TARGET), "millstream::any_part");
    }

    #[test]
    fn a_name_without_a_part_has_no_target() {
        for name in [
            "",
            "millstream",
            "millstream.",
            "millstream..down",
            "millstream.part",
            "millstream.part.",
            "other.part.down",
        ] {
            let caught = catch_unwind(|| target_len(name));
            assert!(caught.is_err(), "{name}");
        }
    }
}
