//! Detects shards that no member would ever read.

use std::collections::HashMap;
use std::sync::Arc;

use super::row::Row;
use super::shards::first_hole;
use crate::stream::HashRange;

/// How often the same hole must be seen. A reshard leaves a hole for a moment.
const CONFIDENCE: u32 = 3;

/// The holes that were seen, by stream.
#[derive(Debug, Default)]
pub(crate) struct Audit(HashMap<Arc<str>, (HashRange, u32)>);

impl Audit {
    /// Returns whether a stream needs a shard sync.
    pub(crate) fn finds<'a>(
        &mut self,
        stream: &Arc<str>,
        rows: impl IntoIterator<Item = &'a Row>,
    ) -> bool {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return true;
        }
        let unread = rows.filter(|row| !row.is_ended());
        let Some(hole) = first_hole(unread.filter_map(|row| row.range)) else {
            self.0.remove(stream);
            return false;
        };
        let (seen, times) = self.0.entry(stream.clone()).or_insert((hole, 0));
        if *seen != hole {
            (*seen, *times) = (hole, 0);
        }
        *times += 1;
        if *times < CONFIDENCE {
            return false;
        }
        self.0.remove(stream);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::row::{Own, Progress};

    const MIDDLE: u128 = u128::MAX / 2;

    fn row(first: u128, last: u128, progress: Progress) -> Row {
        Row {
            key: format!("{first}").into(),
            counter: 0,
            owner: None,
            checkpoint_owner: None,
            switches: 0,
            progress,
            parents: Vec::new(),
            children: Vec::new(),
            range: Some(HashRange { first, last }),
            own: Own::default(),
        }
    }

    #[test]
    fn s40_a_whole_is_never_synced() {
        let rows = [
            row(0, MIDDLE, Progress::Latest),
            row(MIDDLE + 1, u128::MAX, Progress::TrimHorizon),
        ];
        let mut audit = Audit::default();
        for _ in 0..5 {
            assert!(!audit.finds(&"s".into(), &rows));
        }
    }

    #[test]
    fn s41_a_hole_is_synced_when_it_was_seen_three_times() {
        let rows = [
            row(0, MIDDLE, Progress::Latest),
            row(MIDDLE + 1, u128::MAX, Progress::End),
        ];
        let mut audit = Audit::default();
        let found: Vec<bool> = (0..6).map(|_| audit.finds(&"s".into(), &rows)).collect();
        assert_eq!(found, [false, false, true, false, false, true]);
    }

    #[test]
    fn s42_another_hole_begins_anew() {
        let upper = [row(MIDDLE + 1, u128::MAX, Progress::Latest)];
        let lower = [row(0, MIDDLE, Progress::Latest)];
        let mut audit = Audit::default();
        assert!(!audit.finds(&"s".into(), &upper));
        assert!(!audit.finds(&"s".into(), &upper));
        assert!(!audit.finds(&"s".into(), &lower));
        assert!(!audit.finds(&"s".into(), &upper));
        assert!(!audit.finds(&"other".into(), &upper));
    }

    #[test]
    fn a_stream_without_leases_is_synced_at_once() {
        assert!(Audit::default().finds(&"s".into(), &[]));
    }
}
