//! Two clocks: the machine's monotonic clock, which all processes share, and the CPU time of this
//! process.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Returns the CPU time of all threads of this process so far, in user and kernel mode.
pub(crate) fn processor() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// Returns the time of a clock that is the same in every process of the machine.
pub(crate) fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

fn read(clock: ClockId) -> Duration {
    let read = clock_gettime(clock);
    read.try_into().expect("these clocks begin at zero")
}
