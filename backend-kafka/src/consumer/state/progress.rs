//! The progress of a group in a partition.

use crate::consumer::types::TopicPartition;
use crate::group::note::Note;
use crate::native::topic_ids::TopicId;

/// The stored progress of a group in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The offset to read next.
    pub(crate) next: i64,
    /// The epoch of the leader that wrote the record before it.
    pub(crate) leader_epoch: Option<i32>,
    pub(crate) note: Note,
}

/// A partition that is being assigned.
#[derive(Debug)]
pub(crate) struct NewPartition {
    pub(crate) name: TopicPartition,
    /// The group's stored progress in this topic, if any.
    pub(crate) progress: Option<Progress>,
    /// The id of the topic, if the broker has reported it.
    pub(crate) stream_id: Option<TopicId>,
    /// The topic of the same name in which the group stored its progress, if it was another one.
    pub(crate) earlier_topic: Option<TopicId>,
}

impl Progress {
    /// Returns the progress of a group that begins at an offset.
    pub(crate) fn at(next: i64) -> Self {
        Self {
            next,
            leader_epoch: None,
            note: Note::default(),
        }
    }
}

impl NewPartition {
    /// Decides where to begin in a partition, from the progress stored under its name and the current id of its topic.
    /// Offsets of an earlier topic mean nothing in this one, which is read from its beginning. Its epochs and resets
    /// continue, since they are numbers of the group.
    pub(crate) fn new(
        name: TopicPartition,
        stored: Option<Progress>,
        stream_id: Option<TopicId>,
    ) -> Self {
        let known = stored.and_then(|progress| progress.note.topic);
        let earlier_topic = known.filter(|known| stream_id.is_some_and(|id| id != *known));
        let progress = stored.map(|progress| {
            let note = Note {
                topic: stream_id.or(known),
                ..progress.note
            };
            match earlier_topic {
                Some(_) => Progress {
                    note,
                    ..Progress::at(0)
                },
                None => Progress { note, ..progress },
            }
        });
        Self {
            name,
            progress,
            stream_id,
            earlier_topic,
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::Epoch;

    use super::*;

    fn id(last: char) -> Option<TopicId> {
        format!("AAAAAAAAAAAAAAAAAAAAA{last}").parse().ok()
    }

    fn stored(topic: Option<TopicId>) -> Option<Progress> {
        Some(Progress {
            next: 100,
            leader_epoch: Some(3),
            note: Note {
                epoch: Some(Epoch(7)),
                reset: Some(2),
                claim: None,
                topic,
            },
        })
    }

    #[test]
    fn progress_in_an_earlier_topic_is_none_in_this_one() {
        let new = |topic, now| NewPartition::new(("s".into(), 0), stored(topic), now);
        let (one, other) = (id('Q'), id('g'));
        assert!(one.is_some() && other.is_some());
        for (known, now, next, leader_epoch) in [
            (one, one, 100, Some(3)),
            (one, other, 0, None),
            // Stored by another client, or before notes had ids.
            (None, other, 100, Some(3)),
            // The broker has not reported the id.
            (one, None, 100, Some(3)),
        ] {
            let new = new(known, now);
            let progress = new.progress.unwrap();
            let name = format!("{known:?} {now:?}");
            assert_eq!(
                (progress.next, progress.leader_epoch),
                (next, leader_epoch),
                "{name}"
            );
            let note = progress.note;
            assert_eq!(
                (note.epoch, note.reset),
                (Some(Epoch(7)), Some(2)),
                "{name}"
            );
            assert_eq!((note.topic, new.stream_id), (now.or(known), now), "{name}");
            assert_eq!(new.earlier_topic.is_some(), next == 0, "{name}");
        }
    }

    #[test]
    fn partition_without_progress_has_none_of_an_earlier_topic() {
        let new = NewPartition::new(("s".into(), 0), None, id('Q'));
        assert_eq!((new.progress, new.stream_id), (None, id('Q')));
    }
}
