//! Decides from a seed which member joins, leaves or crashes next, and when.

use std::time::Duration;

use fastrand::Rng;

use crate::stage::Stage;

/// A script of membership changes.
#[derive(Debug)]
pub(crate) struct Chaos {
    random: Rng,
    members: usize,
    /// The changes of this round, so that each kind happens soon.
    round: Vec<Change>,
}

/// A change of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    Join,
    Leave,
    Crash,
}

impl Chaos {
    /// Groups begin with `members` members, and have at most one more.
    pub(crate) fn new(seed: u64, members: usize) -> Self {
        Self {
            random: Rng::with_seed(seed),
            members,
            round: Vec::new(),
        }
    }

    /// Returns how long to wait before the next change.
    pub(crate) fn pause(&mut self) -> Duration {
        Duration::from_millis(self.random.u64(100..500))
    }

    /// Returns the next change, for groups of these sizes: the group and the change.
    pub(crate) fn next(&mut self, sizes: &[usize; Stage::ALL.len()]) -> (Stage, Change) {
        if self.round.is_empty() {
            self.round = vec![Change::Crash, Change::Leave, Change::Join];
            self.random.shuffle(&mut self.round);
        }
        let wanted = self.round.pop().unwrap_or(Change::Join);
        let index = self.random.usize(..Stage::ALL.len());
        let change = match sizes[index] {
            0 => Change::Join,
            size if size > self.members && wanted == Change::Join => Change::Leave,
            // The last member may crash, so that a new one takes over; but it does not leave.
            1 if wanted == Change::Leave => Change::Join,
            _ => wanted,
        };
        (Stage::ALL[index], change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(seed: u64) -> Vec<(Stage, Change)> {
        let mut chaos = Chaos::new(seed, 2);
        let mut sizes = [2; Stage::ALL.len()];
        let mut script = Vec::new();
        for _ in 0..200 {
            let (stage, change) = chaos.next(&sizes);
            let size = &mut sizes[stage as usize];
            match change {
                Change::Join => *size += 1,
                Change::Leave | Change::Crash => *size -= 1,
            }
            assert!(*size <= 3, "{stage:?} has {size} members");
            assert!(*size >= 1 || change == Change::Crash);
            script.push((stage, change));
        }
        script
    }

    #[test]
    fn a_seed_decides_everything() {
        assert_eq!(script(7), script(7));
        assert_ne!(script(7), script(8));
    }

    #[test]
    fn every_kind_of_change_comes_early_and_every_group_has_its_turn() {
        for seed in 0..20 {
            let script = script(seed);
            assert!(
                script[..6]
                    .iter()
                    .any(|(_, change)| *change == Change::Crash)
            );
            for stage in Stage::ALL {
                assert!(script.iter().any(|(at, _)| *at == stage));
            }
        }
    }
}
