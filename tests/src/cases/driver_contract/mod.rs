//! The contract of a driver with the runtime, tested by calls to the driver itself.
//!
//! The runtime requires less than a driver must provide: it releases in time, polls at all times, and stores an epoch's
//! progress in that epoch only. So a driver may break its contract unnoticed behind a working runtime, until it matters
//! one day. These cases replace the runtime.

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
