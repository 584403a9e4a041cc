//! Failed fetches: which of them librdkafka retries, and which mean that records are gone.

use std::time::Instant;

use millstream_core::driver::Event;
use millstream_core::telemetry::Causes;
use millstream_core::{Error, ErrorKind, Position};

use super::assigned::Assigned;
use super::question::Question;
use crate::error;
use crate::native::messages::FetchFailure;
use crate::offsets;

/// The reason why an offset cannot be read, derived from the first offset and the end of its partition.
#[derive(Debug, PartialEq, Eq)]
enum OutOfRange {
    /// Retention has deleted the record: reading continues at the first offset.
    Trimmed,
    /// The log ends before it.
    BeyondEnd,
    /// The log was truncated before it, and has grown again since. Other records are there now.
    CutBack,
    /// It can be read. The failure was of another offset.
    Readable,
}

impl OutOfRange {
    /// Decides the reason. `next` is the offset to read. `failed` is the offset whose fetch failed: it is later than
    /// `next` if markers of transactions were passed, and negative if librdkafka does not report it.
    fn of(next: i64, failed: Option<i64>, low: i64, high: i64) -> Self {
        match failed {
            _ if next > high => Self::BeyondEnd,
            _ if next < low => Self::Trimmed,
            // The first offset only grows, so retention was not the reason. A new leader that was in sync has all
            // readable records, and such an error of a follower is not relied on.
            Some(failed) if !(0..low).contains(&failed) => Self::CutBack,
            _ => Self::Readable,
        }
    }
}

/// Handles a failed fetch of a partition. Returns the question to ask about it.
///
/// librdkafka treats the message of a failure like a record at the failed offset, and moves its
/// position past it (2.12; confluentinc/librdkafka#4844). That position is not progress: the record
/// was not read. It is trusted again when a record arrives.
///
/// # Errors
/// Errors that no retry fixes.
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

/// Decides how to continue in a partition where an offset could not be read, from the first offset of the
/// partition and its end. If retention has deleted records, returns an event, and reading continues at the first
/// offset.
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
            // A truncation is reported without an offset.
            (1_000, Some(-1_001), OutOfRange::CutBack),
            (1_011, Some(1_011), OutOfRange::BeyondEnd),
            (99, Some(99), OutOfRange::Trimmed),
            (99, Some(104), OutOfRange::Trimmed),
            // The group was reset in the meantime.
            (1_000, Some(50), OutOfRange::Readable),
            // The response for a failure that was already handled.
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
