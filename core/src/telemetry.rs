//! Events for `tracing`, with names that stay.
//!
//! Every step of a life cycle is one event of target `millstream`. Its name is part of the public
//! API, as its fields are: dashboards and alerts are built on them. Nothing is formatted or
//! collected when nobody listens.

/// Emits an event by level, name and fields.
macro_rules! event {
    ($level:ident, $name:literal, $($fields:tt)+) => {
        tracing::$level!(name: $name, target: "millstream", $($fields)+)
    };
}

pub(crate) use event;
