//! Faults planted on purpose, to show that the simulation finds them.
//!
//! Only a build with `--cfg millstream_planted` has them, and only the test that looks for them
//! builds so. Everywhere else [`is`] is a constant `false` and the optimizer removes what it
//! guards.

/// A fault of the runtime or of the memory backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// The checkpoint takes the highest settled position, not the contiguous one.
    CheckpointGap = 1,
    /// A key whose record waits for a retry is not held back.
    OrderLostOnRetry,
    /// A revoked partition is released while its records are in flight.
    DrainSkipped,
    /// A stale owner's checkpoint is taken.
    FenceIgnored,
    /// A child is assigned before its parents are settled.
    ChildBeforeParent,
    /// A receipt is given for a record that is stored later, or never.
    ReceiptBeforeStored,
    /// A producer sends the later records of a key while a failed one waits for its retry.
    ProducerOvertakes,
    /// A handler's panic settles the record.
    PanicSettles,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::CheckpointGap,
        Self::OrderLostOnRetry,
        Self::DrainSkipped,
        Self::FenceIgnored,
        Self::ChildBeforeParent,
        Self::ReceiptBeforeStored,
        Self::ProducerOvertakes,
        Self::PanicSettles,
    ];
}

/// Whether `bug` is planted.
#[cfg(not(millstream_planted))]
#[inline(always)]
pub const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(millstream_planted)]
pub use planting::{is, plant};

#[cfg(millstream_planted)]
mod planting {
    use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

    use super::Bug;

    static PLANTED: AtomicU8 = AtomicU8::new(0);

    /// Whether `bug` is planted.
    pub fn is(bug: Bug) -> bool {
        PLANTED.load(Relaxed) == bug as u8
    }

    /// Plants one bug in the whole process, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.store(bug.map_or(0, |bug| bug as u8), Relaxed);
    }
}
