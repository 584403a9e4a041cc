//! The note that is stored with a committed offset.

use millstream_core::Epoch;

use crate::native::topic_ids::TopicId;

/// The metadata of a committed offset: the epoch that stored it, the last reset that was applied, the epoch that has
/// taken over the partition since, and the id of its topic.
///
/// Other clients store other metadata or none; both are read as an empty note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Note {
    /// The epoch of the member that stored it. `None` if the group was created or reset here, or another
    /// client stored it.
    pub(crate) epoch: Option<Epoch>,
    /// The last reset that was applied.
    pub(crate) reset: Option<u64>,
    /// The epoch of a member that continued from here, and has stored no progress yet.
    pub(crate) claim: Option<Epoch>,
    /// The id of the topic that was read. A recreated topic has another id, and the offset means nothing
    /// there.
    pub(crate) topic: Option<TopicId>,
}

impl Note {
    const MARK: &'static str = "millstream";

    pub(crate) fn to_metadata(self) -> String {
        let mut text = String::from(Self::MARK);
        if let Some(Epoch(epoch)) = self.epoch {
            text += &format!(" epoch={epoch}");
        }
        if let Some(reset) = self.reset {
            text += &format!(" reset={reset}");
        }
        if let Some(Epoch(claim)) = self.claim {
            text += &format!(" claim={claim}");
        }
        if let Some(topic) = self.topic {
            text += &format!(" topic={topic}");
        }
        text
    }

    /// Returns `None` if another client has stored the offset.
    pub(crate) fn of_ours(text: &str) -> Option<Self> {
        let ours = text.split(' ').next() == Some(Self::MARK);
        ours.then(|| Self::from_metadata(text))
    }

    pub(crate) fn from_metadata(text: &str) -> Self {
        let mut words = text.split(' ');
        let mut note = Self::default();
        if words.next() != Some(Self::MARK) {
            return note;
        }
        for word in words {
            match word.split_once('=') {
                Some(("epoch", number)) => note.epoch = number.parse().ok().map(Epoch),
                Some(("reset", number)) => note.reset = number.parse().ok(),
                Some(("claim", number)) => note.claim = number.parse().ok().map(Epoch),
                Some(("topic", id)) => note.topic = id.parse().ok(),
                _ => {}
            }
        }
        note
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_survive_and_foreign_ones_are_empty() {
        for note in [
            Note::default(),
            Note {
                epoch: Some(Epoch(7)),
                ..Note::default()
            },
            Note {
                epoch: Some(Epoch(u64::MAX)),
                reset: Some(3),
                claim: Some(Epoch(9)),
                topic: "AAAAAAAAAAAAAAAAAAAABw".parse().ok(),
            },
        ] {
            assert_eq!(Note::from_metadata(&note.to_metadata()), note);
            assert_eq!(Note::of_ours(&note.to_metadata()), Some(note));
        }
        for foreign in ["", "epoch=3", "some app", "millstream2 epoch=3"] {
            assert_eq!(Note::from_metadata(foreign), Note::default());
            assert_eq!(Note::of_ours(foreign), None);
        }
    }
}
