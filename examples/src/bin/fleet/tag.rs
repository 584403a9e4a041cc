//! Identifies each record by a header: the run, the lane and the sequence number in the lane.

use millstream::{Headers, Record};

const HEADER: &str = "fleet-event";

/// Identifies this run among those whose records a durable stream still holds. Contains no dot.
#[derive(Debug, Clone)]
pub(crate) struct RunId(pub(crate) String);

/// A record's unique id: the `seq`-th record of its lane, counted from 1.
///
/// A lane is a sequence that must stay in order: for reports the vehicle; for alerts the vehicle
/// and the vehicle whose report raised them (see `alerts`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag<'a> {
    pub(crate) lane: &'a str,
    pub(crate) seq: u64,
}

impl RunId {
    /// Marks `record` with `tag`.
    pub(crate) fn mark(&self, record: Record, tag: Tag<'_>) -> Record {
        record.header(HEADER, format!("{}.{}.{}", self.0, tag.seq, tag.lane))
    }

    /// Reads the tag of a record of this run.
    pub(crate) fn tag<'a>(&self, headers: &'a Headers) -> Option<Tag<'a>> {
        let text = std::str::from_utf8(headers.get(HEADER)?).ok()?;
        let (seq, lane) = text
            .strip_prefix(&self.0)?
            .strip_prefix('.')?
            .split_once('.')?;
        let seq = seq.parse().ok()?;
        Some(Tag { lane, seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_back_by_its_own_run_only() {
        let run = RunId("r1".into());
        let tag = Tag {
            lane: "a.b<c",
            seq: 7,
        };
        let record = run.mark(Record::new("x"), tag);
        assert_eq!(run.tag(&record.headers), Some(tag));
        assert_eq!(RunId("r".into()).tag(&record.headers), None);
        assert_eq!(run.tag(&Headers::new()), None);
    }
}
