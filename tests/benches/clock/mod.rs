//! Two clocks: the monotonic clock of the machine, which all processes share, and the processor
//! time of this one.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time of all threads of this process so far, in and out of the kernel.
pub(crate) fn processor() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// Time that runs alike in every process of the machine.
pub(crate) fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

fn read(clock: ClockId) -> Duration {
    let read = clock_gettime(clock);
    read.try_into().expect("these clocks begin at zero")
}
