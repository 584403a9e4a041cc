//! The place of a reader in its shard: the next record, the records it already had, and those it may have missed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_core::driver::StoredRecord;
use millstream_core::{ErrorKind, Position};
use tokio::time::Instant;

use super::answer::{Answer, Raw};
use super::source::Spot;
use crate::lease::ResumePoint;

/// Every stream [keeps its records][retention] for at least a day, so nothing is missing if
/// all records to be read were stored a little less than that ago. The difference allows for clock skew.
///
/// [retention]: https://docs.aws.amazon.com/streams/latest/dev/kinesis-extended-retention.html
const KEPT: Duration = Duration::from_secs(23 * 3_600);

/// The maximum lead of the clock that a start time was taken from over the clock of Kinesis, which
/// stamps the records. Starting too early repeats records, starting too late loses some.
const SKEW: Duration = Duration::from_secs(5);

const MILLI: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Place {
    begin: ResumePoint,
    /// The iterator of [`ResumePoint::Latest`], until it is used.
    iterator: Option<String>,
    /// The last record that the reader has passed; for a carrier, the last of its user records.
    passed: Option<Position>,
    presence: Presence,
    /// The records still to be read were stored after this time.
    certain: Option<Since>,
    /// The start time of [`ResumePoint::Latest`]: the last time when nothing was left.
    since: SystemTime,
    /// When the start of [`ResumePoint::Latest`] was pinned.
    pinned: Option<SystemTime>,
    /// For [`ResumePoint::Latest`], the time from which the reader continues. Earlier records are from before the start, and left
    /// out until a later one arrives: a service without a record of that time may begin at the oldest one.
    floor: Option<SystemTime>,
    /// Whether an early record may still arrive for [`ResumePoint::At`].
    early: bool,
    /// When the start at [`ResumePoint::Earliest`] or [`ResumePoint::At`] was resolved.
    resolved: Option<(SystemTime, Since)>,
    /// Whether Kinesis does not know `passed`, or rejects the start time.
    unknown: bool,
    /// Whether Kinesis has rejected the time that replaces one in the future, too.
    is_far_apart: bool,
}

/// Whether the shard still has the last record that the reader has passed. If that is gone, Kinesis begins with the next
/// available one, and does not report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// The next record will show it: the reader has looked for its place.
    Open,
    /// It was there at that time. A response that arrived before misses no record that follows.
    Seen(Instant),
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
pub(super) enum Meeting {
    /// It was delivered before, or is too early.
    Old,
    /// It is the carrier that contains the record after which the reader began.
    After(Position),
    New,
    /// It is new, and others may be missing before it.
    Gap {
        after: Option<Position>,
    },
}

impl Place {
    /// `tip` is when nothing was left to be read from there on, and `resolved` when the start there was
    /// resolved, if these are known.
    pub(super) fn new(
        begin: ResumePoint,
        tip: Option<SystemTime>,
        resolved: Option<SystemTime>,
    ) -> Self {
        let passed = match &begin {
            ResumePoint::After(position) => Some(*position),
            _ => None,
        };
        let pinned = match &begin {
            ResumePoint::Latest(pin) => Some(pin.at),
            _ => None,
        };
        let iterator = match &begin {
            ResumePoint::Latest(pin) => Some(pin.iterator.clone()),
            _ => None,
        };
        let tip = tip.max(pinned);
        let early = matches!(begin, ResumePoint::At(_));
        let resolved =
            resolved.filter(|_| matches!(begin, ResumePoint::Earliest | ResumePoint::At(_)));
        Self {
            begin,
            iterator,
            passed,
            presence: Presence::Open,
            certain: tip.map(Since::time),
            since: tip.unwrap_or_else(SystemTime::now),
            pinned,
            floor: None,
            early,
            resolved: resolved.map(|at| (at, Since::time(at))),
            unknown: false,
            is_far_apart: false,
        }
    }

    /// Returns the place after an earlier record of the same reader.
    pub(super) fn resumed(&self, after: Position) -> Self {
        Self {
            begin: self.begin.clone(),
            iterator: None,
            passed: Some(after),
            presence: Presence::Open,
            unknown: false,
            is_far_apart: false,
            ..*self
        }
    }

    /// Returns the iterator that was taken when the group was created, or the last one after it. It is used once.
    pub(super) fn pinned(&mut self) -> Option<String> {
        self.iterator.take().filter(|_| self.passed.is_none())
    }

    /// Keeps an iterator with which a reader without a record continues. Its own time would be less exact.
    pub(super) fn pin(&mut self, iterator: String) {
        if matches!(self.begin, ResumePoint::Latest(_)) && self.passed.is_none() {
            self.iterator = Some(iterator);
        }
    }

    /// Returns whether a reader without a record can begin by time: not so early that it gets records from before the
    /// pin, and not too late, although the clocks that took both times may be wrong.
    pub(super) fn is_quiet(&self) -> bool {
        self.pinned.is_some_and(|at| self.since >= at + 2 * SKEW)
    }

    /// Returns whether there is a record to continue after.
    pub(super) fn has_passed(&self) -> bool {
        self.passed.is_some()
    }

    /// Returns the position for the next request.
    pub(super) fn look(&mut self) -> Spot {
        self.presence = Presence::Open;
        match (self.passed, &self.begin) {
            (Some(_), _) if self.unknown => Spot::Earliest,
            (Some(passed), _) => Spot::At(passed),
            // It is rejected as long as it is in the future. The tip would be too late: the time may pass until that
            // request arrives. Earlier records are left out.
            (None, ResumePoint::At(at)) if self.unknown => match self.is_far_apart {
                false => Spot::Time(
                    SystemTime::now()
                        .min(*at)
                        .checked_sub(SKEW)
                        .unwrap_or(UNIX_EPOCH),
                ),
                true => Spot::Earliest,
            },
            // Times are sent as binary fractions: a slightly late one would skip a record.
            (None, ResumePoint::At(at)) => Spot::Time(at.checked_sub(MILLI).unwrap_or(UNIX_EPOCH)),
            // Its time is rejected, so the clocks are far apart. All stored records are read,
            // because any of them may be after that time.
            (None, ResumePoint::Latest(_)) if self.unknown => {
                self.floor = None;
                Spot::Earliest
            }
            (None, ResumePoint::Latest(_)) => {
                let at = self.since.checked_sub(SKEW).unwrap_or(UNIX_EPOCH);
                self.floor = Some(at);
                Spot::Time(at)
            }
            (None, ResumePoint::Earliest | ResumePoint::After(_)) => Spot::Earliest,
        }
    }

    /// Handles a position that Kinesis rejects, if the position is the reason: a sequence number may not be
    /// that of a record, or a time may be in the future. If the shard is not found, the error is the
    /// same as for a number, and starting at the oldest record is always safe.
    pub(super) fn refuse(&mut self, spot: &Spot, kind: ErrorKind) {
        self.is_far_apart |=
            self.unknown && matches!(spot, Spot::Time(_)) && kind == ErrorKind::Invalid;
        self.unknown |= match spot {
            Spot::At(_) => matches!(kind, ErrorKind::Invalid | ErrorKind::NotFound),
            Spot::Time(_) => kind == ErrorKind::Invalid,
            Spot::After(_) | Spot::Earliest => false,
        };
    }

    /// Handles a response whose records are all delivered. The remaining records were stored after these, or
    /// at most this long before the response arrived.
    pub(super) fn is_certain(
        &mut self,
        asked: SystemTime,
        answered: Instant,
        behind: Option<Duration>,
    ) {
        (self.unknown, self.is_far_apart) = (false, false);
        let Some(behind) = behind else {
            return;
        };
        // The reader has passed all records that existed at the time.
        self.early &= self.resolved.is_none() || !behind.is_zero();
        if self.passed.is_none() {
            self.since = asked;
        } else if self.is_doubtful() {
            // No record has shown yet whether one is missing.
            return;
        }
        self.certain = Some(Since {
            noted: answered,
            before: behind,
        });
    }

    /// Returns whether none of the records to be read can have been removed.
    pub(super) fn is_fresh(&self) -> bool {
        self.certain.is_some_and(|since| since.age() < KEPT)
    }

    /// Returns whether the next records may be removed before they are requested.
    fn is_at_risk(&self) -> bool {
        self.certain.is_some() && !self.is_fresh()
    }

    /// Returns the record that must still be there after the response has arrived. `None` if the response misses nothing, or
    /// shows by itself what is missing.
    pub(super) fn to_confirm(&self, answer: &Answer, arrived: Instant) -> Option<Position> {
        let Presence::Seen(at) = self.presence else {
            return None;
        };
        let is_conclusive = !answer.records.is_empty() || answer.behind == Some(Duration::ZERO);
        let is_open = is_conclusive && self.is_at_risk() && at < arrived;
        self.passed.filter(|_| is_open)
    }

    /// Returns whether the last record must be confirmed now and then, and was there so recently.
    pub(super) fn was_confirmed_within(&self, time: Duration) -> bool {
        let Presence::Seen(at) = self.presence else {
            return false;
        };
        self.is_at_risk() && at.elapsed() < time
    }

    /// Records that the last record was there at this time.
    pub(super) fn confirm(&mut self, at: Instant) {
        self.presence = match self.presence {
            Presence::Seen(before) => Presence::Seen(before.max(at)),
            Presence::Open => Presence::Seen(at),
        };
    }

    /// Records that the last record may be gone.
    pub(super) fn doubt(&mut self) {
        self.presence = Presence::Open;
    }

    /// Returns whether records may have been removed while no reader was running.
    fn is_doubtful(&self) -> bool {
        self.presence == Presence::Open && !self.is_fresh()
    }

    /// Returns the relation of the next record to the reader. It is of a response that arrived at this time.
    pub(super) fn meet(&mut self, raw: &Raw, arrived: Instant) -> Meeting {
        if let Some(passed) = self.passed {
            let number = passed.with_sub_sequence(0);
            if raw.position < number {
                self.confirm(arrived);
                return Meeting::Old;
            }
            if raw.position == number {
                self.confirm(arrived);
                return Meeting::After(passed);
            }
            if self.is_doubtful() {
                return Meeting::Gap {
                    after: Some(shown(passed)),
                };
            }
        } else if self.may_have_lost_its_first() {
            self.floor = None;
            return Meeting::Gap { after: None };
        }
        match (&self.begin, raw.arrival) {
            // Kinesis knows whole milliseconds.
            (ResumePoint::At(at), Some(arrival)) if self.early && arrival < whole(*at) => {
                Meeting::Old
            }
            (_, Some(arrival)) if self.floor.is_some_and(|floor| arrival < whole(floor)) => {
                Meeting::Old
            }
            _ => {
                self.floor = None;
                Meeting::New
            }
        }
    }

    /// Returns whether records may be gone with which the group would have begun.
    fn may_have_lost_its_first(&self) -> bool {
        match (self.certain, &self.resolved) {
            (Some(_), _) => self.is_doubtful(),
            (None, Some((_, since))) => since.age() >= KEPT,
            (None, None) => false,
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
        let (ResumePoint::At(at), true) = (&self.begin, self.early) else {
            return;
        };
        let at = whole(*at);
        let resolved = self.resolved.map(|(at, _)| at);
        let is_before = arrival < resolved && arrival.is_some();
        let mut left = records.iter();
        let begins = left.position(|record| !is_before || record.timestamp >= at);
        records.drain(..begins.unwrap_or(records.len()));
        self.early = begins.is_none();
    }

    /// Moves past a Kinesis record, with all its user records.
    pub(super) fn pass(&mut self, raw: &Raw, arrived: Instant) {
        let last = raw.position.with_sub_sequence(u64::MAX);
        self.passed = self.passed.max(Some(last));
        self.confirm(arrived);
    }

    /// Returns the last position before the records that may have been removed with the rest of the shard; `None` if
    /// nothing can have been lost.
    pub(super) fn lost_with_shard(&self) -> Option<Position> {
        self.passed.filter(|_| self.is_doubtful()).map(shown)
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
