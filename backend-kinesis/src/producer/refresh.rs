//! Decides when the shards are listed again: at once if a response shows that the map is wrong, less and
//! less often while the list does not change, and periodically in any case.

use std::time::Duration;

use tokio::time::Instant;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Refresh {
    is_wanted: bool,
    /// Whether the listing in flight was requested.
    running: Option<bool>,
    last: Instant,
    pause: Duration,
}

impl Refresh {
    /// Creates the state after a listing at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            is_wanted: false,
            running: None,
            last: now,
            pause: SHORTEST,
        }
    }

    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Returns when the next listing is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let pause = if self.is_wanted { self.pause } else { LONGEST };
        self.running.is_none().then(|| self.last + pause)
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.running = Some(self.is_wanted);
        (self.is_wanted, self.last) = (false, now);
    }

    pub(super) fn end(&mut self, has_changed: bool) {
        let was_wanted = self.running.take().unwrap_or(false);
        self.pause = match was_wanted && !has_changed {
            true => (self.pause * 3 / 2).min(LONGEST),
            false => SHORTEST,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the next due listing. Returns its time after `last`.
    fn next(refresh: &mut Refresh, last: &mut Instant, has_changed: bool) -> f32 {
        let due = refresh.due().unwrap();
        refresh.begin(due);
        assert_eq!(refresh.due(), None);
        refresh.end(has_changed);
        let waited = due - *last;
        *last = due;
        waited.as_secs_f32()
    }

    #[test]
    fn it_is_done_less_often_while_it_brings_nothing() {
        let mut last = Instant::now();
        let mut refresh = Refresh::new(last);
        assert_eq!(next(&mut refresh, &mut last, false), 30.0);
        let mut wanted = |has_changed| {
            refresh.want();
            next(&mut refresh, &mut last, has_changed)
        };
        assert_eq!(
            [1.0, 1.5, 2.25],
            [wanted(false), wanted(false), wanted(true)]
        );
        assert_eq!([1.0, 1.5], [wanted(false), wanted(false)]);
        for _ in 0..20 {
            wanted(false);
        }
        assert_eq!(wanted(false), 30.0);
    }
}
