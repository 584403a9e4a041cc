//! A delivery of a pipeline that its handler has settled, and whose output the broker has refused.

use super::output_buffer::Origin;

/// The delivery is the first unsettled record of its partition until the failure policy has settled it. Its
/// number is below the watermark of the window, while all other unsettled numbers are above.
#[derive(Debug)]
pub(crate) struct RefusedDelivery {
    pub(crate) origin: Origin,
    /// Whether the failure policy may still settle it. It cannot after it was abandoned.
    pub(crate) in_flight: bool,
}

impl RefusedDelivery {
    pub(crate) fn new(origin: Origin) -> Self {
        Self {
            origin,
            in_flight: true,
        }
    }

    pub(crate) fn is(&self, number: u64) -> bool {
        self.origin.number == number
    }
}
