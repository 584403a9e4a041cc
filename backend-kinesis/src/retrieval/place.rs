//! Where a reader is in its shard: what comes next, what it had already, and what it may have missed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream::{ErrorKind, Position};
use tokio::time::Instant;

use super::Begin;
use super::answer::Raw;
use super::source::Spot;

/// Every stream [keeps its records][retention] for a day at least, so that nothing is missing behind
/// a place that was the right one a little less than that ago.
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
    /// When this was the right place for certain.
    certain: Option<Instant>,
    /// From when on [`Begin::Latest`] reads: the last time when nothing was left.
    since: SystemTime,
    /// Whether an early record may still come for [`Begin::At`].
    early: bool,
    /// Whether Kinesis knows nothing of `passed`, or of the time to begin at.
    unknown: bool,
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
        after: Position,
    },
}

impl Place {
    pub(super) fn new(begin: Begin) -> Self {
        let passed = match &begin {
            Begin::After(position) => Some(*position),
            _ => None,
        };
        let since = match &begin {
            Begin::Latest(Some((_, at))) => *at,
            _ => SystemTime::now(),
        };
        let early = matches!(begin, Begin::At(_));
        Self {
            begin,
            passed,
            met: false,
            certain: None,
            since,
            early,
            unknown: false,
        }
    }

    /// An iterator that was taken when the group was born. It is used once.
    pub(super) fn pinned(&mut self) -> Option<String> {
        match &mut self.begin {
            Begin::Latest(pin) if self.passed.is_none() => {
                let (iterator, _) = pin.take()?;
                // What was stored since then is read by time if the iterator is too old.
                self.certain = Some(Instant::now());
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
        self.met = false;
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
                self.certain = Some(Instant::now());
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

    /// Takes note of an answer whose records are all handed on.
    pub(super) fn is_certain(&mut self, asked: SystemTime, answered: Instant) {
        self.unknown = false;
        if self.passed.is_none() {
            self.since = asked;
        } else if self.is_doubtful() {
            // No record has shown yet whether one is missing.
            return;
        }
        self.certain = Some(answered);
    }

    /// Whether nothing can have gone by since this was the right place.
    pub(super) fn is_fresh(&self) -> bool {
        self.certain.is_some_and(|at| at.elapsed() < KEPT)
    }

    /// Whether records may have gone by while the reader was not there.
    fn is_doubtful(&self) -> bool {
        !self.met && !self.is_fresh()
    }

    /// What the next record is to the reader.
    pub(super) fn meet(&mut self, raw: &Raw) -> Meeting {
        if let Some(passed) = self.passed {
            let number = passed.within(0);
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
                    after: shown(passed),
                };
            }
        }
        match (&self.begin, raw.arrival) {
            // Kinesis knows whole milliseconds.
            (Begin::At(at), Some(arrival)) if self.early && arrival < whole(*at) => Meeting::Old,
            _ => {
                self.early = false;
                Meeting::New
            }
        }
    }

    /// Takes note that a record of Kinesis is behind the reader, with all that it carries.
    pub(super) fn pass(&mut self, raw: &Raw) {
        self.passed = self.passed.max(Some(raw.position.within(u64::MAX)));
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
        u64::MAX => passed.within(0),
        _ => passed,
    }
}

fn whole(at: SystemTime) -> SystemTime {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_millis(since.as_millis().try_into().unwrap_or(u64::MAX))
}
