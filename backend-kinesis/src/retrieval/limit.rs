//! The number of records of a request. Fewer are requested while responses take too long, so that a slow network delivers
//! some.

/// How many times fewer records are requested after a timeout.
const SHRINK: usize = 4;

/// How many times more records are requested after a response.
const GROW: usize = 2;

#[derive(Debug)]
pub(super) struct Limit {
    now: usize,
    most: usize,
}

impl Limit {
    /// Creates the limit from its maximum.
    pub(super) fn new(most: usize) -> Self {
        Self { now: most, most }
    }

    /// Returns the maximum number of records of the next request.
    pub(super) fn get(&self) -> usize {
        self.now
    }

    pub(super) fn timed_out(&mut self) {
        self.now = (self.now / SHRINK).max(1);
    }

    pub(super) fn succeeded(&mut self) {
        self.now = (self.now * GROW).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shrinks_to_one_record_and_grows_again() {
        let mut limit = Limit::new(10_000);
        for expected in [2_500, 625, 156, 39, 9, 2, 1, 1] {
            limit.timed_out();
            assert_eq!(limit.get(), expected);
        }
        for expected in [2, 4, 8] {
            limit.succeeded();
            assert_eq!(limit.get(), expected);
        }
        (0..20).for_each(|_| limit.succeeded());
        assert_eq!(limit.get(), 10_000);
    }
}
