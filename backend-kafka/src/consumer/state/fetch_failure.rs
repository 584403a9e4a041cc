//! Fetches that fail: which of them librdkafka repeats, and which mean that records are gone.

use std::time::Instant;

use millstream_core::driver::Event;
use millstream_core::telemetry::Causes;
use millstream_core::{Error, ErrorKind, Position};

use super::assigned::Assigned;
use super::question::Question;
use crate::error;
use crate::native::consume::FetchFailure;
use crate::offsets;

/// What an offset that cannot be read means, by the first offset and the end of its partition.
#[derive(Debug, PartialEq, Eq)]
enum OutOfRange {
    /// Retention has deleted the record: reading continues at the first offset.
    Trimmed,
    /// The log ends before it.
    BeyondEnd,
    /// The log ended before it, and has grown again since. Other records are there now.
    CutBack,
    /// It can be read, and the failure was of another offset.
    Readable,
}

impl OutOfRange {
    /// `next` is the offset to read, `failed` the one whose fetch failed: later than `next` if markers
    /// of transactions were passed, negative if librdkafka does not say.
    fn of(next: i64, failed: Option<i64>, low: i64, high: i64) -> Self {
        match failed {
            _ if next > high => Self::BeyondEnd,
            _ if next < low => Self::Trimmed,
            // The first offset only grows, so retention was not the reason. A new leader that was in sync
            // has all that could be read, and a follower's word is not taken for it.
            Some(failed) if !(0..low).contains(&failed) => Self::CutBack,
            _ => Self::Readable,
        }
    }
}

/// Handles a failed fetch of a partition. Returns what to ask about it.
///
/// librdkafka takes the message of a failure for a record at the failed offset, and moves its
/// position past it (2.12; confluentinc/librdkafka#4844). That position is no progress: the record
/// was not read. It is trusted again when a record comes.
///
/// # Errors
/// What no repetition mends.
pub(crate) fn on_failed(
    it: &mut Assigned,
    failure: FetchFailure,
    group: &str,
    now: Instant,
) -> Result<Option<Question>, Error> {
    it.position_is_suspect = true;
    match error::kind_of(failure.code) {
        ErrorKind::DataLoss => {
            it.out_of_range = Some(failure);
            Ok(Some(Question::Bounds(it.name.clone())))
        }
        ErrorKind::NotFound => Ok(Some(Question::Topic(it.name.0.clone()))),
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Throttled => {
            tracing::debug!(
                target: "librdkafka", partition = %it.partition, code = failure.code,
                reason = failure.reason, "a fetch failed, it is repeated"
            );
            let error = || Causes(&error::from_number("read", failure.code)).to_string();
            it.failed_fetches
                .on_failure(&it.partition, group, now, error);
            Ok(None)
        }
        _ => {
            let error = error::from_number("read", failure.code);
            Err(error.with_partition(&it.partition))
        }
    }
}

/// Decides how to go on in a partition where an offset could not be read, by the first offset of the
/// partition and its end. Where retention has deleted records, that is an event, and reading continues at
/// the first offset.
///
/// # Errors
/// `Corrupt` if other records are gone that the group has not read.
pub(crate) fn on_bounds(
    it: &mut Assigned,
    (low, high): (i64, i64),
) -> Result<Option<Event>, Error> {
    let next = it.position;
    let failure = it.out_of_range.take();
    let failed = failure.as_ref().map(|failure| failure.offset);
    let corrupt = |message: String| {
        let error = Error::new(ErrorKind::Corrupt, "read", message);
        Err(error.with_partition(&it.partition))
    };
    match OutOfRange::of(next, failed, low, high) {
        OutOfRange::BeyondEnd => corrupt(format!(
            "the group's progress {next} is beyond the end {high}: the topic was created \
             anew or its end was lost; reset the group"
        )),
        OutOfRange::CutBack => {
            let reason = failure.map(|failure| failure.reason).unwrap_or_default();
            corrupt(format!(
                "the log ended before the group's progress {next}, and has grown again to {high}: \
                 its end was lost, or the topic was created anew, and the group has not read what \
                 was stored since; reset the group ({reason})"
            ))
        }
        OutOfRange::Trimmed => {
            it.delivered = low;
            it.position = low;
            it.leader_epochs.note(low - 1, None);
            Ok(Some(Event::DataLoss {
                partition: it.partition.clone(),
                epoch: it.epoch,
                after: offsets::settled(next),
                earliest: Position::from(u64::try_from(low).unwrap_or(0)),
            }))
        }
        OutOfRange::Readable => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_within_the_log_that_could_not_be_read_was_cut_off() {
        for (next, failed, expected) in [
            (1_000, Some(1_000), OutOfRange::CutBack),
            // Markers of transactions were passed.
            (1_000, Some(1_004), OutOfRange::CutBack),
            // A truncation is reported without the offset.
            (1_000, Some(-1_001), OutOfRange::CutBack),
            (1_011, Some(1_011), OutOfRange::BeyondEnd),
            (99, Some(99), OutOfRange::Trimmed),
            (99, Some(104), OutOfRange::Trimmed),
            // The group was reset since.
            (1_000, Some(50), OutOfRange::Readable),
            // The answer for a failure that was dealt with.
            (1_000, None, OutOfRange::Readable),
        ] {
            assert_eq!(
                OutOfRange::of(next, failed, 100, 1_010),
                expected,
                "next {next}, failed {failed:?}"
            );
        }
    }
}
