//! The read cursor: where a reader is in its shard. It knows the next record, the records that the reader already had, and
//! those that it may have missed.
//!
//! Each part answers one question: which record was passed last, and is it still there ([`Passed`]); which records are from
//! before the start ([`Skip`]); did Kinesis reject the position ([`Rejected`]); and how old the records to be read can be.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_core::driver::StoredRecord;
use millstream_core::{ErrorKind, Position};
use tokio::time::Instant;

use super::answer::{Answer, Raw};
use super::source::StartingPosition;
use crate::lease::{Pin, ResumePoint};

/// Every stream [keeps its records][retention] for at least a day, so nothing is missing if
/// all records to be read were stored a little less than that ago. The difference allows for clock skew. A stream's own
/// period may be longer, but is no promise, see [`confirm`](super::confirm).
///
/// [retention]: https://docs.aws.amazon.com/streams/latest/dev/kinesis-extended-retention.html
const KEPT: Duration = Duration::from_secs(23 * 3_600);

/// The maximum lead of the clock that a start time was taken from over the clock of Kinesis, which
/// stamps the records. Starting too early repeats records, starting too late loses some.
const SKEW: Duration = Duration::from_secs(5);

const MILLI: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct ReadCursor {
    passed: Passed,
    skip: Skip,
    rejected: Rejected,
    /// The records still to be read were stored after this time. `None` if it is not known.
    stored_after: Option<Since>,
}

/// The last record that the reader has passed; for an aggregate, the last of its user records.
#[derive(Debug)]
enum Passed {
    /// There is none. Open: are records gone with which the group would have begun?
    Nothing(Start),
    /// The reader has looked for this one. Open: is it still there? If not, Kinesis begins with the next available record,
    /// and does not report that. The first record of the response shows it.
    Unconfirmed(Position),
    /// It was there at that time. A response that arrived before misses no record that follows. Open for a later response,
    /// if the next records are so old that they may have been removed.
    Confirmed { last: Position, at: Instant },
}

/// The start of a reader without a record.
#[derive(Debug)]
enum Start {
    Earliest,
    /// The tip of the shard when the group was created.
    Latest {
        /// The iterator from which to continue, until it is used.
        iterator: Option<String>,
        pinned: SystemTime,
        /// The last time when nothing was left.
        quiet: SystemTime,
    },
    At(SystemTime),
}

/// The records that are left out because they are from before the start.
#[derive(Debug, Clone, Copy)]
enum Skip {
    None,
    /// Those stored before the time from which [`Start::Latest`] continues, until a later one arrives: a service without a
    /// record of that time may begin at the oldest one.
    Stored(SystemTime),
    /// Those that are older than [`Start::At`], see [`ReadCursor::pass_early`].
    Early {
        time: SystemTime,
        /// When the start was resolved.
        resolved: Option<SystemTime>,
    },
}

/// Whether Kinesis rejects the position that was asked for: it does not know the last record, or the time is in the future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rejected {
    No,
    Once,
    /// The time that replaces one in the future, too: the clocks are far apart.
    Again,
}

/// A time in the past, stored so that it ages by a monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Since {
    noted: Instant,
    /// Its age when it was recorded.
    before: Duration,
}

impl Since {
    fn ago(before: Duration) -> Self {
        let noted = Instant::now();
        Self { noted, before }
    }

    fn time(time: SystemTime) -> Self {
        Self::ago(time.elapsed().unwrap_or_default())
    }

    fn age(&self) -> Duration {
        self.noted.elapsed() + self.before
    }
}

/// The relation of a record to the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// It was delivered before, or is too early.
    Old,
    /// It is the aggregate that contains the record after which the reader began.
    After(Position),
    New,
    /// It is new, and others may be missing before it.
    Gap {
        after: Option<Position>,
    },
}

impl ReadCursor {
    /// `caught_up` is when nothing was left to be read from there on, and `resolved` when the start there was
    /// resolved, if these are known.
    pub(super) fn new(
        begin: ResumePoint,
        caught_up: Option<SystemTime>,
        resolved: Option<SystemTime>,
    ) -> Self {
        let (passed, skip, stored_after) = match begin {
            ResumePoint::After(last) => (Passed::Unconfirmed(last), Skip::None, caught_up),
            ResumePoint::Earliest => (
                Passed::Nothing(Start::Earliest),
                Skip::None,
                caught_up.or(resolved),
            ),
            ResumePoint::Latest(Pin { iterator, at }) => {
                let quiet = caught_up.unwrap_or(at).max(at);
                let start = Start::Latest {
                    iterator: Some(iterator),
                    pinned: at,
                    quiet,
                };
                (Passed::Nothing(start), Skip::None, Some(quiet))
            }
            ResumePoint::At(time) => (
                Passed::Nothing(Start::At(time)),
                Skip::Early { time, resolved },
                caught_up.or(resolved),
            ),
        };
        Self {
            passed,
            skip,
            rejected: Rejected::No,
            stored_after: stored_after.map(Since::time),
        }
    }

    /// Returns the cursor after an earlier record of the same reader.
    pub(super) fn resumed(&self, after: Position) -> Self {
        Self {
            passed: Passed::Unconfirmed(after),
            rejected: Rejected::No,
            ..*self
        }
    }

    /// Returns the last record that was passed.
    fn last(&self) -> Option<Position> {
        match self.passed {
            Passed::Nothing(_) => None,
            Passed::Unconfirmed(last) | Passed::Confirmed { last, .. } => Some(last),
        }
    }

    /// Returns the iterator that was taken when the group was created, or the last one after it. It is used once.
    pub(super) fn pinned(&mut self) -> Option<String> {
        match &mut self.passed {
            Passed::Nothing(Start::Latest { iterator, .. }) => iterator.take(),
            _ => None,
        }
    }

    /// Keeps an iterator with which a reader without a record continues. Its own time would be less exact.
    pub(super) fn pin(&mut self, next: String) {
        if let Passed::Nothing(Start::Latest { iterator, .. }) = &mut self.passed {
            *iterator = Some(next);
        }
    }

    /// Returns whether a reader without a record can begin by time: not so early that it gets records from before the
    /// pin, and not too late, although the clocks that took both times may be wrong.
    pub(super) fn is_quiet(&self) -> bool {
        match &self.passed {
            Passed::Nothing(Start::Latest { pinned, quiet, .. }) => *quiet >= *pinned + 2 * SKEW,
            _ => false,
        }
    }

    /// Returns whether there is a record to continue after.
    pub(super) fn has_passed(&self) -> bool {
        self.last().is_some()
    }

    /// Returns the position for the next request.
    pub(super) fn look(&mut self) -> StartingPosition {
        let rejected = self.rejected;
        match &self.passed {
            Passed::Unconfirmed(last) | Passed::Confirmed { last, .. } => {
                let last = *last;
                self.passed = Passed::Unconfirmed(last);
                match rejected {
                    Rejected::No => StartingPosition::At(last),
                    Rejected::Once | Rejected::Again => StartingPosition::Earliest,
                }
            }
            Passed::Nothing(Start::Earliest) => StartingPosition::Earliest,
            Passed::Nothing(Start::At(at)) => match rejected {
                // Times are sent as binary fractions: a slightly late one would skip a record.
                Rejected::No => StartingPosition::Time(at.checked_sub(MILLI).unwrap_or(UNIX_EPOCH)),
                // It is rejected as long as it is in the future. The tip would be too late: the time may pass until that
                // request arrives. Earlier records are left out.
                Rejected::Once => {
                    let now = SystemTime::now().min(*at);
                    StartingPosition::Time(now.checked_sub(SKEW).unwrap_or(UNIX_EPOCH))
                }
                Rejected::Again => StartingPosition::Earliest,
            },
            Passed::Nothing(Start::Latest { quiet, .. }) => match rejected {
                Rejected::No => {
                    let at = quiet.checked_sub(SKEW).unwrap_or(UNIX_EPOCH);
                    self.skip = Skip::Stored(at);
                    StartingPosition::Time(at)
                }
                // The clocks are far apart. All stored records are read, because any of them may be after that time.
                Rejected::Once | Rejected::Again => {
                    self.skip = Skip::None;
                    StartingPosition::Earliest
                }
            },
        }
    }

    /// Handles a position that Kinesis rejects, if the position is the reason: a sequence number may not be
    /// that of a record, or a time may be in the future. If the shard is not found, the error is the
    /// same as for a number, and starting at the oldest record is always safe.
    pub(super) fn refuse(&mut self, position: &StartingPosition, kind: ErrorKind) {
        let rejected = match (position, kind) {
            (StartingPosition::At(_), ErrorKind::Invalid | ErrorKind::NotFound) => Rejected::Once,
            (StartingPosition::Time(_), ErrorKind::Invalid) if self.rejected == Rejected::No => {
                Rejected::Once
            }
            (StartingPosition::Time(_), ErrorKind::Invalid) => Rejected::Again,
            _ => return,
        };
        self.rejected = rejected;
    }

    /// Handles a response whose records are all delivered. The remaining records were stored after these, or
    /// at most this long before the response arrived.
    pub(super) fn note_behind(
        &mut self,
        asked: SystemTime,
        arrived: Instant,
        behind: Option<Duration>,
    ) {
        self.rejected = Rejected::No;
        let Some(behind) = behind else {
            return;
        };
        // The reader has passed all records that existed at the time.
        if let Skip::Early {
            resolved: Some(_), ..
        } = self.skip
            && behind.is_zero()
        {
            self.skip = Skip::None;
        }
        let is_fresh = self.is_fresh();
        match &mut self.passed {
            // No record has shown yet whether one is missing.
            Passed::Unconfirmed(_) if !is_fresh => return,
            Passed::Nothing(Start::Latest { quiet, .. }) => *quiet = asked,
            Passed::Nothing(Start::Earliest | Start::At(_))
            | Passed::Unconfirmed(_)
            | Passed::Confirmed { .. } => {}
        }
        self.stored_after = Some(Since {
            noted: arrived,
            before: behind,
        });
    }

    /// Returns whether none of the records to be read can have been removed.
    pub(super) fn is_fresh(&self) -> bool {
        self.stored_after.is_some_and(|since| since.age() < KEPT)
    }

    /// Returns whether a response needs not begin with the last record to show that nothing is missing.
    pub(super) fn is_confirmed(&self) -> bool {
        matches!(self.passed, Passed::Confirmed { .. }) || self.is_fresh()
    }

    /// Returns whether the next records may be removed before they are requested.
    fn is_at_risk(&self) -> bool {
        self.stored_after.is_some_and(|since| since.age() >= KEPT)
    }

    /// Returns the record that must still be there after the response has arrived. `None` if the response misses nothing, or
    /// shows by itself what is missing.
    pub(super) fn to_confirm(&self, answer: &Answer, arrived: Instant) -> Option<Position> {
        let Passed::Confirmed { last, at } = self.passed else {
            return None;
        };
        // Other empty responses are followed by one that is.
        let is_conclusive = !answer.records.is_empty()
            || answer.behind == Some(Duration::ZERO)
            || answer.next.is_none();
        (is_conclusive && self.is_at_risk() && at < arrived).then_some(last)
    }

    /// Returns whether the last record must be confirmed now and then, and was there so recently.
    pub(super) fn was_confirmed_within(&self, time: Duration) -> bool {
        match self.passed {
            Passed::Confirmed { at, .. } => self.is_at_risk() && at.elapsed() < time,
            Passed::Nothing(_) | Passed::Unconfirmed(_) => false,
        }
    }

    /// Records that this record is the last one, and was there at a time.
    pub(super) fn confirm(&mut self, last: Position, at: Instant) {
        let at = match self.passed {
            Passed::Confirmed { at: before, .. } => before.max(at),
            Passed::Nothing(_) | Passed::Unconfirmed(_) => at,
        };
        self.passed = Passed::Confirmed { last, at };
    }

    /// Records that the last record may be gone.
    pub(super) fn doubt(&mut self) {
        if let Some(last) = self.last() {
            self.passed = Passed::Unconfirmed(last);
        }
    }

    /// Returns the relation of the next record to the reader. It is of a response that arrived at this time.
    pub(super) fn meet(&mut self, raw: &Raw, arrived: Instant) -> Relation {
        if let Some(last) = self.last() {
            let number = last.with_sub_sequence(0);
            if raw.position <= number {
                self.confirm(last, arrived);
                return match raw.position == number {
                    true => Relation::After(last),
                    false => Relation::Old,
                };
            }
        }
        match self.passed {
            Passed::Unconfirmed(last) if !self.is_fresh() => Relation::Gap {
                after: Some(shown(last)),
            },
            Passed::Nothing(_) if self.is_at_risk() => {
                self.reach_stored();
                Relation::Gap { after: None }
            }
            _ => self.meet_unpassed(raw),
        }
    }

    /// Returns the relation of a record before which nothing is missing.
    fn meet_unpassed(&mut self, raw: &Raw) -> Relation {
        let begins = match self.skip {
            Skip::None => None,
            Skip::Stored(time) | Skip::Early { time, .. } => Some(time),
        };
        // Kinesis knows whole milliseconds.
        let is_before = |(arrival, begins)| arrival < whole(begins);
        if raw.arrival.zip(begins).is_some_and(is_before) {
            return Relation::Old;
        }
        self.reach_stored();
        Relation::New
    }

    /// No further record is from before the time at which the reader continues.
    fn reach_stored(&mut self) {
        if let Skip::Stored(_) = self.skip {
            self.skip = Skip::None;
        }
    }

    /// Leaves out the records that are older than the start time, up to the first that is not. They
    /// are from a Kinesis record that was stored at `arrival`.
    ///
    /// Kinesis finds the position by the times at which records were stored, and a record may have an older
    /// explicit timestamp. A record that was stored after the group had begun is read in any case.
    pub(super) fn pass_early(
        &mut self,
        arrival: Option<SystemTime>,
        records: &mut Vec<StoredRecord>,
    ) {
        let Skip::Early { time, resolved } = self.skip else {
            return;
        };
        let time = whole(time);
        let is_before = arrival.is_some() && arrival < resolved;
        let mut left = records.iter();
        let begins = left.position(|record| !is_before || record.timestamp >= time);
        records.drain(..begins.unwrap_or(records.len()));
        if begins.is_some() {
            self.skip = Skip::None;
        }
    }

    /// Moves past a Kinesis record, with all its user records. It is of a response that arrived at this time.
    pub(super) fn pass(&mut self, raw: &Raw, arrived: Instant) {
        let passed = raw.position.with_sub_sequence(u64::MAX);
        let last = self.last().map_or(passed, |last| last.max(passed));
        self.confirm(last, arrived);
    }

    /// Returns the last position before the records that may have been removed with the rest of the shard; `None` if
    /// nothing can have been lost.
    pub(super) fn lost_with_shard(&self) -> Option<Position> {
        match self.passed {
            Passed::Unconfirmed(last) if !self.is_fresh() => Some(shown(last)),
            _ => None,
        }
    }
}

/// Returns the public position of a record that is passed with all its user records.
fn shown(passed: Position) -> Position {
    match passed.sub() {
        u64::MAX => passed.with_sub_sequence(0),
        _ => passed,
    }
}

fn whole(at: SystemTime) -> SystemTime {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_millis(since.as_millis().try_into().unwrap_or(u64::MAX))
}
