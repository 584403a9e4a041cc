//! What the polling thread wants to know, and in which order it is asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_core::{Error, ErrorKind};

use super::context::Name;
use super::stalled::Failing;
use crate::cluster::Absence;

/// How soon a question is asked again that was not answered.
const PAUSE: Duration = Duration::from_millis(100);

/// What the polling thread wants to know.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// The stored progress of partitions that are being assigned. Asked until it is answered.
    Progress(Vec<Name>),
    /// Whether others have stored progress where this member would. Asked until it is answered.
    Unstored(Vec<Name>),
    /// The oldest and the next offset of a partition. Asked until it is answered.
    Bounds(Name),
    /// The next offsets of partitions. Asked once: it will be asked again.
    Ends(Vec<Name>),
    /// Whether a topic is still there. Asked until it is there, or is certainly gone.
    Topic(Arc<str>),
    /// Which partitions can be reset from now on.
    Watch(Vec<Name>),
}

/// A question without an answer so far.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) question: Question,
    due: Instant,
    pub(super) failing: Failing,
    absence: Absence,
}

impl Open {
    /// Whether the broker that was asked may merely not know the topic yet.
    pub(super) fn is_behind(&mut self, error: &Error) -> bool {
        error.kind() == ErrorKind::NotFound && !self.absence.on_unknown(Instant::now())
    }
}

/// The questions without an answer. None waits for another one's answer, but for one attempt of it.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: Vec<Open>,
}

impl Questions {
    pub(super) fn push(&mut self, question: Question, now: Instant) {
        self.open.push(Open {
            question,
            due: now,
            failing: Failing::since(now),
            absence: Absence::default(),
        });
    }

    /// Takes the next one that is due. All partitions of a member stand still until the progress of
    /// those that are being assigned is known, so that goes first.
    pub(super) fn next(&mut self, now: Instant) -> Option<Open> {
        let open = self.open.iter().enumerate();
        let due = open.filter(|(_, open)| open.due <= now);
        let first = due.min_by_key(|(_, open)| {
            let waits = !matches!(open.question, Question::Progress(_));
            (waits, open.due)
        });
        let (index, _) = first?;
        Some(self.open.remove(index))
    }

    /// Has one asked again that was not answered.
    pub(super) fn again(&mut self, open: Open, now: Instant) {
        let due = now + PAUSE;
        self.open.push(Open { due, ..open });
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.open.iter().map(|open| open.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(partition: i32) -> Name {
        ("s".into(), partition)
    }

    #[test]
    fn a_question_without_an_answer_holds_up_no_other() {
        let mut now = Instant::now();
        let mut questions = Questions::default();
        questions.push(Question::Bounds(name(0)), now);
        questions.push(Question::Bounds(name(1)), now);
        questions.push(Question::Progress(vec![name(2)]), now);
        let mut asked = Vec::new();
        while let Some(open) = questions.next(now) {
            let is_answered = !matches!(&open.question, Question::Bounds((_, 0)));
            asked.push(format!("{:?}", open.question));
            if !is_answered {
                questions.again(open, now);
            }
        }
        let progress = Question::Progress(vec![name(2)]);
        assert_eq!(asked.len(), 3);
        assert_eq!(asked[0], format!("{progress:?}"), "it goes first");
        assert_eq!(questions.next_due(), Some(now + PAUSE));
        now += PAUSE;
        questions.push(Question::Progress(vec![name(3)]), now);
        let next = questions.next(now).map(|open| open.question);
        assert_eq!(next, Some(Question::Progress(vec![name(3)])));
        let next = questions.next(now).map(|open| open.question);
        assert_eq!(next, Some(Question::Bounds(name(0))));
        assert_eq!(questions.next_due(), None);
    }
}
