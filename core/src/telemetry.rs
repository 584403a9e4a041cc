//! Events for `tracing`, with names that stay.
//!
//! Every step of a life cycle is one event of target `millstream`. Its name is part of the public
//! API, as its fields are: dashboards and alerts are built on them. Nothing is formatted or
//! collected when nobody listens.

use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Emits an event by level, name and fields.
macro_rules! event {
    ($level:ident, $name:literal, $($fields:tt)+) => {
        tracing::$level!(name: $name, target: "millstream", $($fields)+)
    };
}

pub(crate) use event;

/// An error with its causes, in one line.
///
/// The text of an error is the application's code: where it panics, that is what is printed.
pub(crate) struct Causes<'a>(pub(crate) &'a (dyn StdError + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = text(|| self.0.to_string());
        f.write_str(&last)?;
        let mut cause = source(self.0);
        while let Some(error) = cause {
            let next = text(|| error.to_string());
            // Some errors print their cause themselves.
            if !last.ends_with(&next) {
                write!(f, ": {next}")?;
            }
            last = next;
            cause = source(error);
        }
        Ok(())
    }
}

fn text(print: impl FnOnce() -> String) -> String {
    catch_unwind(AssertUnwindSafe(print)).unwrap_or_else(|_| "printing the error panicked".into())
}

fn source<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    catch_unwind(AssertUnwindSafe(|| error.source())).unwrap_or_default()
}
