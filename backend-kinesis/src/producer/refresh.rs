//! When the shards are listed again: at once where an answer shows that the map is wrong, less and
//! less often while the list does not change, and now and then in any case.

use std::time::Duration;

use tokio::time::Instant;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Refresh {
    is_wanted: bool,
    /// Whether the one under way was wanted.
    running: Option<bool>,
    last: Instant,
    pause: Duration,
}

impl Refresh {
    /// The shards were listed just `now`.
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

    /// When to begin the next one.
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
