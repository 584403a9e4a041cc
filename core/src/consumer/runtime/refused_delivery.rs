//! A delivery of a pipeline that its handler has settled, and whose output the broker has refused.

use super::output_buffer::Origin;

/// It is the first unsettled record of its partition until the failure policy has settled it. Its
/// number lies below the watermark of the window, where all other unsettled numbers lie above.
#[derive(Debug)]
pub(crate) struct RefusedDelivery {
    pub(crate) origin: Origin,
    /// Whether the failure policy may still settle it. It cannot when it was abandoned.
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
