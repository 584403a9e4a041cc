//! The schedule of renewals: leases take turns, so the member learns of the table all the time, and
//! not of all leases at once and then of none for long.

use std::time::Duration;

use tokio::time::Instant;

use super::held::Held;

/// The turns of a member's leases.
#[derive(Debug, Clone, Copy)]
pub(super) struct RenewalTurns {
    /// The maximum time between two renewals.
    interval: Duration,
    /// When the first turn of the first lease was.
    begun: Instant,
}

impl RenewalTurns {
    pub(super) fn new(interval: Duration, begun: Instant) -> Self {
        Self { interval, begun }
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// Returns how long after its last change a lease is renewed. It is the lease of rank `rank` of `of` leases.
    ///
    /// It is renewed early once, to move to its turn, but not after a checkpoint: renewals between frequent checkpoints
    /// are useless. It is not renewed earlier than after half the time either, because each lease
    /// that is added or removed moves the turns of the others.
    pub(super) fn wait(&self, held: &Held, rank: usize, of: usize) -> Duration {
        if !held.is_quiet {
            return self.interval;
        }
        let interval = self.interval.as_nanos();
        let turn = interval * rank as u128 / of as u128;
        let at = held.renewed_at.saturating_duration_since(self.begun);
        let late = (at.as_nanos() + interval - turn) % interval;
        let late = Duration::from_nanos(u64::try_from(late).unwrap_or(u64::MAX));
        self.interval - late.min(self.interval / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::key::LeaseKey;
    use crate::lease::row::{Own, Progress, Row};

    fn held(at: Instant) -> Held {
        let row = Row {
            key: "s".into(),
            counter: 1,
            owner: None,
            checkpoint_owner: None,
            switches: 0,
            progress: Progress::Latest,
            parents: Vec::new(),
            children: Vec::new(),
            range: None,
            own: Own::default(),
        };
        let lease = LeaseKey {
            stream: "s".into(),
            shard: "s".into(),
        };
        Held::new(lease, row, at)
    }

    #[test]
    fn leases_that_are_taken_at_once_come_to_turns_of_the_same_distance() {
        let begun = Instant::now();
        let interval = Duration::from_millis(1_200);
        let turns = RenewalTurns::new(interval, begun);
        for of in 1..20 {
            let mut at: Vec<u128> = (0..of)
                .map(|rank| {
                    let mut held = held(begun + Duration::from_millis(777));
                    for _ in 0..3 {
                        let wait = turns.wait(&held, rank, of);
                        assert!(wait >= interval / 2 && wait <= interval, "{wait:?}");
                        held.renewed_at += wait;
                    }
                    assert_eq!(turns.wait(&held, rank, of), interval);
                    (held.renewed_at - begun).as_nanos() % interval.as_nanos()
                })
                .collect();
            at.sort_unstable();
            let share = interval.as_nanos() / of as u128;
            for pair in at.windows(2) {
                assert!((pair[1] - pair[0]).abs_diff(share) <= 1, "{at:?}");
            }
        }
    }

    #[test]
    fn a_renewal_that_was_late_does_not_move_the_next_one() {
        let begun = Instant::now();
        let interval = Duration::from_secs(4);
        let turns = RenewalTurns::new(interval, begun);
        let late = Duration::from_millis(3);
        let wait = turns.wait(&held(begun + interval + late), 0, 2);
        assert_eq!(wait, interval - late);
    }

    #[test]
    fn a_checkpoint_puts_the_renewal_off_for_the_whole_time() {
        let begun = Instant::now();
        let interval = Duration::from_secs(4);
        let turns = RenewalTurns::new(interval, begun);
        let mut held = held(begun + Duration::from_secs(3));
        held.is_quiet = false;
        assert_eq!(turns.wait(&held, 0, 2), interval);
    }
}
