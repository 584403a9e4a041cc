//! A short notation for histories.

use conformance::checker::{Verdict, Violation, check};
use conformance::history::{Event, Handling, History, Outcome, Ownership};
use millstream_core::{Epoch, Partition};

pub(crate) const GROUP: &str = "g";
pub(crate) const STREAM: &str = "s";

/// Writes a history in few words. Record `n` of key `k` has id `n`, and is stored at position `n`.
pub(crate) struct Script {
    pub(crate) history: History,
    pub(crate) partition: Partition,
}

pub(crate) fn script() -> Script {
    let script = Script {
        history: History::new(),
        partition: Partition::new(STREAM, "0"),
    };
    script.subscribed()
}

impl Script {
    pub(crate) fn record(self, event: Event) -> Self {
        self.history.record(event);
        self
    }

    pub(crate) fn at(mut self, partition: &str) -> Self {
        self.partition = Partition::new(STREAM, partition);
        self
    }

    pub(crate) fn sent(self, key: &str, id: u64) -> Self {
        let stream = self.partition.stream().into();
        self.record(Event::Sent {
            stream,
            key: Some(key.into()),
            sequence: id,
            id,
            digest: id,
        })
    }

    pub(crate) fn stored(self, id: u64, position: u64) -> Self {
        let partition = self.partition.clone();
        self.record(Event::Acknowledged {
            id,
            partition,
            position: position.into(),
        })
    }

    /// Sends and stores records.
    pub(crate) fn send(self, key: &str, ids: impl IntoIterator<Item = u64>) -> Self {
        ids.into_iter()
            .fold(self, |script, id| script.sent(key, id).stored(id, id))
    }

    pub(crate) fn by(&self, member: &str, epoch: u64) -> Ownership {
        Ownership {
            group: GROUP.into(),
            member: member.into(),
            partition: self.partition.clone(),
            epoch: Epoch(epoch),
        }
    }

    pub(crate) fn handling(&self, member: &str, epoch: u64, id: u64, position: u64) -> Handling {
        Handling {
            by: self.by(member, epoch),
            position: position.into(),
            attempt: 1,
            id,
            digest: id,
            lost: false,
        }
    }

    pub(crate) fn begin(self, member: &str, epoch: u64, id: u64) -> Self {
        let handling = self.handling(member, epoch, id, id);
        self.record(Event::Began(handling))
    }

    pub(crate) fn end(self, member: &str, epoch: u64, id: u64, outcome: Outcome) -> Self {
        let handling = self.handling(member, epoch, id, id);
        self.record(Event::Ended { handling, outcome })
    }

    /// Handles records successfully.
    pub(crate) fn handle(
        self,
        member: &str,
        epoch: u64,
        ids: impl IntoIterator<Item = u64>,
    ) -> Self {
        ids.into_iter().fold(self, |script, id| {
            let script = script.begin(member, epoch, id);
            script.end(member, epoch, id, Outcome::Acked)
        })
    }

    pub(crate) fn checkpoint(self, position: u64, epoch: u64) -> Self {
        let partition = self.partition.clone();
        self.record(Event::Checkpointed {
            group: GROUP.into(),
            partition,
            position: Some(position.into()),
            epoch: Some(Epoch(epoch)),
        })
    }

    pub(crate) fn lost(self, member: &str, epoch: u64) -> Self {
        let by = self.by(member, epoch);
        self.record(Event::Lost(by))
    }

    pub(crate) fn crash(self, member: &str) -> Self {
        self.record(Event::Crashed {
            group: GROUP.into(),
            member: member.into(),
        })
    }

    pub(crate) fn left(self, member: &str) -> Self {
        self.record(Event::Left {
            group: GROUP.into(),
            member: member.into(),
        })
    }

    pub(crate) fn freeze(self, member: &str) -> Self {
        self.record(Event::Fault {
            group: Some(GROUP.into()),
            member: Some(member.into()),
            what: "freeze".into(),
        })
    }

    pub(crate) fn sends_fail(self) -> Self {
        self.record(Event::Fault {
            group: None,
            member: None,
            what: "sends time out".into(),
        })
    }

    pub(crate) fn reset(self, skips: bool) -> Self {
        self.record(Event::Reset {
            group: GROUP.into(),
            stream: STREAM.into(),
            skips,
        })
    }

    /// Deletes the stream, and continues with the next one of its name.
    pub(crate) fn recreated(self) -> Self {
        let next = format!("{STREAM}~2");
        let script = self.record(Event::Deleted {
            stream: STREAM.into(),
            next: next.as_str().into(),
        });
        Script {
            partition: Partition::new(next.as_str(), "0"),
            ..script
        }
        .subscribed()
    }

    fn subscribed(self) -> Self {
        let stream = self.partition.stream().into();
        self.record(Event::Subscribed {
            group: GROUP.into(),
            stream,
            everything: true,
        })
    }

    pub(crate) fn verdict(&self) -> Verdict {
        check(&self.history.entries())
    }

    #[track_caller]
    pub(crate) fn clean(self) -> Verdict {
        let verdict = self.verdict();
        verdict.assert_clean();
        verdict
    }

    /// Returns the only violation.
    #[track_caller]
    pub(crate) fn caught(self) -> Violation {
        let mut verdict = self.verdict();
        assert_eq!(verdict.violations.len(), 1, "{verdict}");
        let violation = verdict.violations.remove(0);
        assert!(violation.to_string().contains(GROUP) || violation.to_string().contains(STREAM));
        violation
    }
}
