//! The size of a request. Requests are smaller while they time out, so that a slow network delivers some.

use super::request::MOST_BYTES;

/// The minimum, unless one record is larger.
const LEAST_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct RequestSize {
    bytes: usize,
}

impl RequestSize {
    pub(super) fn new() -> Self {
        Self { bytes: MOST_BYTES }
    }

    /// Returns the maximum size of the next request.
    pub(super) fn get(&self) -> usize {
        self.bytes
    }

    pub(super) fn timed_out(&mut self) {
        self.bytes = (self.bytes / 2).max(LEAST_BYTES);
    }

    pub(super) fn succeeded(&mut self) {
        self.bytes = (self.bytes + LEAST_BYTES).min(MOST_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shrinks_to_the_minimum_and_grows_again() {
        let mut size = RequestSize::new();
        (0..20).for_each(|_| size.timed_out());
        assert_eq!(size.get(), LEAST_BYTES);
        size.succeeded();
        assert_eq!(size.get(), 2 * LEAST_BYTES);
        (0..100).for_each(|_| size.succeeded());
        assert_eq!(size.get(), MOST_BYTES);
    }
}
