//! Bugs that a test build can enable, to prove that the simulation finds them.
//!
//! They exist only in a build with `--cfg millstream_failpoints`. In every other build the macro
//! `failpoint!` is the constant `false`, and this module is empty.

/// Returns whether the named [`Failpoint`](crate::failpoint::Failpoint) is enabled.
#[doc(hidden)]
#[macro_export]
macro_rules! failpoint {
    ($name:ident) => {{
        #[cfg(millstream_failpoints)]
        let enabled = $crate::failpoint::is_enabled($crate::failpoint::Failpoint::$name);
        #[cfg(not(millstream_failpoints))]
        let enabled = false;
        enabled
    }};
}

#[cfg(millstream_failpoints)]
pub use enabled::{Failpoint, enable, is_enabled};

#[cfg(millstream_failpoints)]
mod enabled {
    use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

    static ENABLED: AtomicU8 = AtomicU8::new(0);

    /// A bug of the runtime or of the memory backend.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[repr(u8)]
    pub enum Failpoint {
        /// The checkpoint takes the highest settled position, not the contiguous one.
        CheckpointGap = 1,
        /// A key whose record waits for a retry is not held back.
        OrderLostOnRetry,
        /// A revoked partition is released while its records are in flight.
        DrainSkipped,
        /// A stale owner's checkpoint is accepted.
        FenceIgnored,
        /// A child is assigned before its parents are settled.
        ChildBeforeParent,
        /// A receipt resolves for a record that is stored later, or never.
        ReceiptBeforeStored,
        /// A producer sends the later records of a key while a failed one waits for its retry.
        ProducerOvertakes,
        /// A handler's panic settles the record.
        PanicSettles,
        /// The checkpoint passes a delivery whose result was refused, before it is settled.
        RefusalPassed,
        /// A tombstone is delivered with an empty payload.
        TombstoneEmptied,
        /// A group that continues with a recreated stream begins at its end.
        RecreatedSkipped,
        /// The epochs of a partition start again in a recreated stream.
        EpochsRestart,
    }

    impl Failpoint {
        /// All failpoints.
        pub const ALL: [Self; 12] = [
            Self::CheckpointGap,
            Self::OrderLostOnRetry,
            Self::DrainSkipped,
            Self::FenceIgnored,
            Self::ChildBeforeParent,
            Self::ReceiptBeforeStored,
            Self::ProducerOvertakes,
            Self::PanicSettles,
            Self::RefusalPassed,
            Self::TombstoneEmptied,
            Self::RecreatedSkipped,
            Self::EpochsRestart,
        ];
    }

    /// Returns whether `failpoint` is enabled.
    pub fn is_enabled(failpoint: Failpoint) -> bool {
        ENABLED.load(Relaxed) == failpoint as u8
    }

    /// Enables one failpoint in the whole process, or none.
    pub fn enable(failpoint: Option<Failpoint>) {
        ENABLED.store(failpoint.map_or(0, |failpoint| failpoint as u8), Relaxed);
    }
}
