//! What a driver promises to the runtime, shown by calls to the driver itself.
//!
//! The runtime asks for less than a driver must give: it releases in time, it polls at all times, it
//! stores an epoch's progress in that epoch only. So a driver may break its contract behind a runtime
//! that works, until the one day on which it matters. These cases take the place of the runtime.

use super::Case;

mod checkpoints;
mod drain;
mod driver_fleet;
mod driver_member;
mod dropped_call;
mod heartbeats;
mod lag;
mod next;
mod publish;
mod resume;
mod routing;

/// Returns the cases of all topics.
pub(super) fn all() -> impl Iterator<Item = &'static Case> {
    [
        routing::CASES,
        next::CASES,
        checkpoints::CASES,
        drain::CASES,
        resume::CASES,
        heartbeats::CASES,
        publish::CASES,
        lag::CASES,
    ]
    .into_iter()
    .flatten()
}
