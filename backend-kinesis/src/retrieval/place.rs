//! Where a reader is in its shard: what comes next, what it had already, and what it may have missed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_core::driver::StoredRecord;
use millstream_core::{ErrorKind, Position};
use tokio::time::Instant;

use super::Begin;
use super::answer::Raw;
use super::source::Spot;

/// Every stream [keeps its records][retention] for a day at least, so that nothing is missing where
/// all that is to be read was stored a little less than that ago. Clocks may differ by the rest.
///
/// [retention]: https://docs.aws.amazon.com/streams/latest/dev/kinesis-extended-retention.html
const KEPT: Duration = Duration::from_secs(23 * 3_600);

/// By how much the clock that a place in time was taken from may be ahead of the one of Kinesis, which
/// stamps the records. To begin too early is a repetition, to begin too late is a loss.
const SKEW: Duration = Duration::from_secs(5);

const MILLI: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Place {
    begin: Begin,
    /// The last record that is behind the reader; for a carrier, the last of its user records.
    passed: Option<Position>,
    /// Whether the reader has met that record, or one before, since it last looked for its place.
    /// Kinesis begins with the next record that is left where the wanted one is gone, and does not say
    /// so.
    met: bool,
    /// Whether a record has been passed since then.
    moved: bool,
    /// What is still to be read was stored after then.
    certain: Option<Since>,
    /// From when on [`Begin::Latest`] reads: the last time when nothing was left.
    since: SystemTime,
    /// Whether an early record may still come for [`Begin::At`].
    early: bool,
    /// When it was decided to begin at [`Begin::Earliest`] or [`Begin::At`].
    resolved: Option<(SystemTime, Since)>,
    /// Whether Kinesis knows nothing of `passed`, or of the time to begin at.
    unknown: bool,
}

/// A time in the past, kept so that it ages by a clock that is never set.
#[derive(Debug, Clone, Copy)]
struct Since {
    noted: Instant,
    /// How long ago it was when it was noted.
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

/// What a record is to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meeting {
    /// It was handed on before, or is too early.
    Old,
    /// It is the carrier after one of whose records the reader began.
    After(Position),
    New,
    /// It is new, and others may be missing before it.
    Gap {
        after: Option<Position>,
    },
}

impl Place {
    /// `tip` is when nothing was left to be read from there on, and `resolved` when it was decided to
    /// begin there, if these are known.
    pub(super) fn new(begin: Begin, tip: Option<SystemTime>, resolved: Option<SystemTime>) -> Self {
        let passed = match &begin {
            Begin::After(position) => Some(*position),
            _ => None,
        };
        let pinned = match &begin {
            Begin::Latest(pin) => pin.as_ref().map(|(_, at)| *at),
            _ => None,
        };
        let tip = tip.max(pinned);
        let early = matches!(begin, Begin::At(_));
        let resolved = resolved.filter(|_| matches!(begin, Begin::Earliest | Begin::At(_)));
        Self {
            begin,
            passed,
            met: false,
            moved: false,
            certain: tip.map(Since::time),
            since: tip.unwrap_or_else(SystemTime::now),
            early,
            resolved: resolved.map(|at| (at, Since::time(at))),
            unknown: false,
        }
    }

    /// An iterator that was taken when the group was born. It is used once.
    pub(super) fn pinned(&mut self) -> Option<String> {
        match &mut self.begin {
            Begin::Latest(pin) if self.passed.is_none() => {
                let (iterator, _) = pin.take()?;
                Some(iterator)
            }
            _ => None,
        }
    }

    /// Whether there is a record to go on after.
    pub(super) fn has_passed(&self) -> bool {
        self.passed.is_some()
    }

    /// From where on Kinesis is to be asked now.
    pub(super) fn look(&mut self) -> Spot {
        (self.met, self.moved) = (false, false);
        let time = |at: SystemTime| Spot::Time(at.checked_sub(SKEW).unwrap_or(UNIX_EPOCH));
        match (self.passed, &self.begin) {
            (Some(_), _) if self.unknown => Spot::Earliest,
            (Some(passed), _) => Spot::At(passed),
            (None, Begin::At(_)) if self.unknown => Spot::Latest,
            // Times go as fractions in binary: one that is a little late would pass over a record.
            (None, Begin::At(at)) => Spot::Time(at.checked_sub(MILLI).unwrap_or(UNIX_EPOCH)),
            // Its time is refused, so that the clocks are far apart: what is stored is read, all of
            // it, since any of it may be after that time.
            (None, Begin::Latest(_)) if self.unknown => Spot::Earliest,
            (None, Begin::Latest(_)) if self.certain.is_some() => time(self.since),
            (None, Begin::Latest(_)) => {
                self.since = SystemTime::now();
                self.certain = Some(Since::ago(Duration::ZERO));
                Spot::Latest
            }
            (None, Begin::Earliest | Begin::After(_)) => Spot::Earliest,
        }
    }

    /// Takes note that Kinesis refuses a place, if it is the place that it refuses: a number may be
    /// no record's, or a time may be in the future. Where the shard is not found, that is the same
    /// error for a number, and to look from the oldest record on is never wrong.
    pub(super) fn refuse(&mut self, spot: &Spot, kind: ErrorKind) {
        self.unknown |= match spot {
            Spot::At(_) => matches!(kind, ErrorKind::Invalid | ErrorKind::NotFound),
            Spot::Time(_) => kind == ErrorKind::Invalid,
            Spot::After(_) | Spot::Earliest | Spot::Latest => false,
        };
    }

    /// Takes note of an answer whose records are all handed on. What is left was stored after these, or
    /// so long before the answer came.
    pub(super) fn is_certain(
        &mut self,
        asked: SystemTime,
        answered: Instant,
        behind: Option<Duration>,
    ) {
        self.unknown = false;
        let Some(behind) = behind else {
            return;
        };
        // All that was there at the time is behind the reader.
        self.early &= self.resolved.is_none() || !behind.is_zero();
        if self.passed.is_none() {
            // An empty answer may be of a part of the shard that has no record, with some behind it.
            if !behind.is_zero() {
                return;
            }
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

    /// Whether nothing of what is to be read can have gone.
    pub(super) fn is_fresh(&self) -> bool {
        self.certain.is_some_and(|since| since.age() < KEPT)
    }

    /// Whether what comes next may go before it is asked for. Kinesis does not say so to who goes on
    /// by an iterator or a subscription: to see that nothing is missing, each answer has to begin with
    /// the last record of the one before.
    pub(super) fn is_at_risk(&self) -> bool {
        self.passed.is_some() && self.certain.is_some() && !self.is_fresh()
    }

    /// Whether the reader has got further since it looked for its place.
    pub(super) fn has_moved(&self) -> bool {
        self.moved
    }

    /// Whether records may have gone by while the reader was not there.
    fn is_doubtful(&self) -> bool {
        !self.met && !self.is_fresh()
    }

    /// What the next record is to the reader.
    pub(super) fn meet(&mut self, raw: &Raw) -> Meeting {
        if let Some(passed) = self.passed {
            let number = passed.with_sub_sequence(0);
            if raw.position < number {
                self.met = true;
                return Meeting::Old;
            }
            if raw.position == number {
                self.met = true;
                return Meeting::After(passed);
            }
            if self.is_doubtful() {
                return Meeting::Gap {
                    after: Some(shown(passed)),
                };
            }
        } else if self.may_have_lost_its_first() {
            return Meeting::Gap { after: None };
        }
        match (&self.begin, raw.arrival) {
            // Kinesis knows whole milliseconds.
            (Begin::At(at), Some(arrival)) if self.early && arrival < whole(*at) => Meeting::Old,
            _ => Meeting::New,
        }
    }

    /// Whether records may have gone that the group would have begun with.
    fn may_have_lost_its_first(&self) -> bool {
        match (self.certain, &self.resolved) {
            (Some(_), _) => self.is_doubtful(),
            (None, Some((_, since))) => since.age() >= KEPT,
            (None, None) => false,
        }
    }

    /// Leaves out the records that are older than the time to begin at, up to the one that is not. They
    /// came with a record of Kinesis that was stored at `arrival`.
    ///
    /// Kinesis finds the place by the times at which records were stored, and a record may have an older
    /// timestamp of its own. One that was stored after the group had begun is read in any case.
    pub(super) fn pass_early(
        &mut self,
        arrival: Option<SystemTime>,
        records: &mut Vec<StoredRecord>,
    ) {
        let (Begin::At(at), true) = (&self.begin, self.early) else {
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

    /// Takes note that a record of Kinesis is behind the reader, with all that it carries.
    pub(super) fn pass(&mut self, raw: &Raw) {
        let before = self.passed;
        self.passed = before.max(Some(raw.position.with_sub_sequence(u64::MAX)));
        self.moved |= before.is_none_or(|before| before.with_sub_sequence(0) < raw.position);
        self.met = true;
    }

    /// The last position before what may have gone with the whole rest of the shard; None if nothing
    /// can have gone.
    pub(super) fn lost_with_shard(&self) -> Option<Position> {
        self.passed.filter(|_| self.is_doubtful()).map(shown)
    }
}

/// The position of a record that is passed with all that it carried, for others to read.
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
