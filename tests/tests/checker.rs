//! The judge is judged: broken histories that it must refuse, and good ones that it must not.

use conformance::checker::{Rules, Verdict, Violation, check};
use conformance::history::{Event, Handling, History, Outcome, Ownership};
use millstream::{Epoch, Partition};

const GROUP: &str = "g";
const STREAM: &str = "s";

/// Writes a history in few words. Record `n` of key `k` has id `n`, and is stored at position `n`.
struct Script {
    history: History,
    partition: Partition,
}

fn script() -> Script {
    let script = Script {
        history: History::new(),
        partition: Partition::new(STREAM, "0"),
    };
    script.record(Event::Subscribed {
        group: GROUP.into(),
        stream: STREAM.into(),
        everything: true,
    })
}

impl Script {
    fn record(self, event: Event) -> Self {
        self.history.record(event);
        self
    }

    fn at(mut self, partition: &str) -> Self {
        self.partition = Partition::new(STREAM, partition);
        self
    }

    fn sent(self, key: &str, id: u64) -> Self {
        self.record(Event::Sent {
            stream: STREAM.into(),
            key: Some(key.into()),
            sequence: id,
            id,
            digest: id,
        })
    }

    fn stored(self, id: u64, position: u64) -> Self {
        let partition = self.partition.clone();
        self.record(Event::Acknowledged {
            id,
            partition,
            position: position.into(),
        })
    }

    /// Sends and stores.
    fn send(self, key: &str, ids: impl IntoIterator<Item = u64>) -> Self {
        ids.into_iter()
            .fold(self, |script, id| script.sent(key, id).stored(id, id))
    }

    fn by(&self, member: &str, epoch: u64) -> Ownership {
        Ownership {
            group: GROUP.into(),
            member: member.into(),
            partition: self.partition.clone(),
            epoch: Epoch(epoch),
        }
    }

    fn handling(&self, member: &str, epoch: u64, id: u64, position: u64) -> Handling {
        Handling {
            by: self.by(member, epoch),
            position: position.into(),
            attempt: 1,
            id,
            digest: id,
            lost: false,
        }
    }

    fn begin(self, member: &str, epoch: u64, id: u64) -> Self {
        let handling = self.handling(member, epoch, id, id);
        self.record(Event::Began(handling))
    }

    fn end(self, member: &str, epoch: u64, id: u64, outcome: Outcome) -> Self {
        let handling = self.handling(member, epoch, id, id);
        self.record(Event::Ended { handling, outcome })
    }

    /// Handles to the good end.
    fn handle(self, member: &str, epoch: u64, ids: impl IntoIterator<Item = u64>) -> Self {
        ids.into_iter().fold(self, |script, id| {
            let script = script.begin(member, epoch, id);
            script.end(member, epoch, id, Outcome::Acked)
        })
    }

    fn checkpoint(self, position: u64, epoch: u64) -> Self {
        let partition = self.partition.clone();
        self.record(Event::Checkpointed {
            group: GROUP.into(),
            partition,
            position: Some(position.into()),
            epoch: Some(Epoch(epoch)),
        })
    }

    fn lost(self, member: &str, epoch: u64) -> Self {
        let by = self.by(member, epoch);
        self.record(Event::Lost(by))
    }

    fn crash(self, member: &str) -> Self {
        self.record(Event::Crashed {
            group: GROUP.into(),
            member: member.into(),
        })
    }

    fn left(self, member: &str) -> Self {
        self.record(Event::Left {
            group: GROUP.into(),
            member: member.into(),
        })
    }

    fn freeze(self, member: &str) -> Self {
        self.record(Event::Fault {
            group: Some(GROUP.into()),
            member: Some(member.into()),
            what: "freeze".into(),
        })
    }

    fn sends_fail(self) -> Self {
        self.record(Event::Fault {
            group: None,
            member: None,
            what: "sends time out".into(),
        })
    }

    fn reset(self, skips: bool) -> Self {
        self.record(Event::Reset {
            group: GROUP.into(),
            stream: STREAM.into(),
            skips,
        })
    }

    fn verdict(&self) -> Verdict {
        check(&self.history.entries())
    }

    #[track_caller]
    fn clean(self) -> Verdict {
        let verdict = self.verdict();
        verdict.assert_clean();
        verdict
    }

    /// The only violation.
    #[track_caller]
    fn caught(self) -> Violation {
        let mut verdict = self.verdict();
        assert_eq!(verdict.violations.len(), 1, "{verdict}");
        let violation = verdict.violations.remove(0);
        assert!(violation.to_string().contains(GROUP) || violation.to_string().contains(STREAM));
        violation
    }
}

macro_rules! assert_caught {
    ($script:expr, $pattern:pat) => {
        let violation = $script.caught();
        assert!(matches!(violation, $pattern), "{violation}");
    };
}

// Broken histories.

#[test]
fn catches_a_lost_record() {
    let script = script()
        .send("k", 1..=2)
        .send("l", [3])
        .handle("a", 1, [1, 2]);
    let violation = script.caught();
    assert!(matches!(&violation, Violation::Lost { record, gave_up: false, .. } if record.id == 3));
    assert_eq!(
        violation.to_string(),
        "lost: group g never settled record 3 at s/0@3"
    );
}

#[test]
fn catches_a_record_lost_in_the_middle_of_its_key() {
    let verdict = script().send("k", 1..=3).handle("a", 1, [1, 3]).verdict();
    assert_eq!(
        (verdict.summary.lost, verdict.summary.out_of_order),
        (1, 1),
        "{verdict}"
    );
}

#[test]
fn catches_a_record_that_only_failed() {
    let script = script().send("k", [1]).begin("a", 1, 1);
    assert_caught!(
        script.end("a", 1, 1, Outcome::Failed),
        Violation::Lost { gave_up: false, .. }
    );
}

#[test]
fn catches_a_dead_letter_that_never_came() {
    let script = script().send("k", [1]).begin("a", 1, 1);
    assert_caught!(
        script.end("a", 1, 1, Outcome::GaveUp),
        Violation::Lost { gave_up: true, .. }
    );
}

#[test]
fn catches_a_reordered_key() {
    let script = script().send("k", 1..=2).handle("a", 1, [2, 1]);
    let verdict = script.verdict();
    assert_eq!(verdict.summary.out_of_order, 2, "{verdict}");
    assert!(
        verdict.to_string().contains("overtaken: key k: record 2"),
        "{verdict}"
    );
}

#[test]
fn catches_a_key_that_goes_on_while_its_record_waits_for_a_retry() {
    let script = script().send("k", 1..=2).begin("a", 1, 1);
    let script = script.end("a", 1, 1, Outcome::Failed).handle("a", 1, [2]);
    let verdict = script.handle("a", 1, [1]).verdict();
    assert!(
        matches!(verdict.violations[0], Violation::Overtaken { .. }),
        "{verdict}"
    );
}

#[test]
fn catches_a_child_read_before_its_parent() {
    let script = script().send("k", [1]).at("1").send("k", [2]);
    let script = script.handle("a", 1, [2]).at("0").handle("b", 1, [1]);
    assert_caught!(script, Violation::OutOfOrder { earlier: 1, .. });
}

#[test]
fn catches_replays_out_of_order() {
    let script = script().send("k", 1..=2).handle("a", 1, [1, 2]).crash("a");
    assert_caught!(script.handle("b", 2, [2, 1]), Violation::Overtaken { .. });
}

#[test]
fn catches_two_handlings_of_a_key_at_once() {
    let script = script().sent("k", 1).stored(1, 1).begin("a", 1, 1);
    let script = script.begin("b", 2, 1).end("a", 1, 1, Outcome::Failed);
    let script = script.end("b", 2, 1, Outcome::Acked);
    assert_caught!(script, Violation::Overlap { .. });
}

#[test]
fn catches_a_checkpoint_past_an_unsettled_record() {
    let script = script().send("k", [1]).send("l", [2]);
    let script = script.handle("a", 1, [2]).begin("a", 1, 1).checkpoint(2, 1);
    let violation = script.end("a", 1, 1, Outcome::Acked).caught();
    assert!(matches!(
        violation,
        Violation::CheckpointPastUnsettled { .. }
    ));
    assert_eq!(
        violation.to_string(),
        "checkpoint past unsettled: group g stored 2 (epoch 1) before record 1 at s/0@1 was settled"
    );
}

#[test]
fn catches_a_checkpoint_past_a_record_in_flight() {
    let script = script().send("k", [1]).begin("a", 1, 1).checkpoint(1, 1);
    let script = script.end("a", 1, 1, Outcome::Acked);
    assert_caught!(script, Violation::CheckpointPastUnsettled { .. });
}

#[test]
fn catches_a_checkpoint_that_goes_back() {
    let script = script().send("k", 1..=2).handle("a", 1, [1, 2]);
    assert_caught!(
        script.checkpoint(2, 1).checkpoint(1, 1),
        Violation::CheckpointWentBack { .. }
    );
}

#[test]
fn catches_a_stale_owner_that_stores_progress() {
    let script = script().send("k", 1..=3).handle("a", 1, [1, 2]).freeze("a");
    let script = script.handle("b", 2, [1]).checkpoint(1, 2).checkpoint(1, 2);
    assert_caught!(
        script.checkpoint(2, 1).handle("b", 2, [3]),
        Violation::StaleCheckpoint {
            epoch: Epoch(1),
            newer: Epoch(2),
            ..
        }
    );
}

#[test]
fn catches_two_owners_in_one_epoch() {
    let script = script().send("k", [1]).send("l", [2]);
    let violation = script.handle("a", 1, [1]).handle("b", 1, [2]).caught();
    assert!(matches!(violation, Violation::TwoOwners { .. }));
    assert_eq!(
        violation.to_string(),
        "two owners: a of group g (epoch 1 of s/0) and b of group g (epoch 1 of s/0)"
    );
}

#[test]
fn catches_an_epoch_that_does_not_grow() {
    let script = script();
    let (first, second) = (script.by("a", 2), script.by("b", 1));
    let script = script
        .record(Event::Assigned(first))
        .record(Event::Assigned(second));
    assert_caught!(script, Violation::EpochNotGrown { .. });
}

#[test]
fn catches_a_stale_owner_that_nothing_befell() {
    let script = script().send("k", [1]).send("l", [2]).handle("b", 2, [1]);
    assert_caught!(script.handle("a", 1, [2]), Violation::StaleHandling { .. });
}

#[test]
fn catches_a_member_that_goes_on_after_it_was_told() {
    let script = script().send("k", 1..=2).handle("a", 1, [1]).lost("a", 1);
    assert_caught!(
        script.handle("a", 1, [2]),
        Violation::HandledAfterLoss { .. }
    );
}

#[test]
fn catches_a_delivery_that_is_lost_before_it_is_handled() {
    let script = script().send("k", [1]);
    let mut handling = script.handling("a", 1, 1, 1);
    handling.lost = true;
    let script = script.record(Event::Began(handling.clone()));
    let outcome = Outcome::Acked;
    assert_caught!(
        script.record(Event::Ended { handling, outcome }),
        Violation::HandledAfterLoss { .. }
    );
}

#[test]
fn catches_a_duplicate_after_a_clean_handover() {
    let script = script().send("k", 1..=2).handle("a", 1, [1, 2]).left("a");
    let script = script.handle("b", 2, [2]);
    assert_eq!(script.verdict().summary.duplicates, 1);
    let violation = script.caught();
    assert!(matches!(violation, Violation::Repeated { .. }));
    assert_eq!(
        violation.to_string(),
        "repeated: record 2 at position 2 by b of group g (epoch 2 of s/0), attempt 1 \
         began although a of group g (epoch 1 of s/0) had settled it and nothing befell it"
    );
}

#[test]
fn catches_a_duplicate_under_one_epoch() {
    let script = script().send("k", [1]).handle("a", 1, [1, 1]).crash("a");
    assert_caught!(script, Violation::Repeated { .. });
}

#[test]
fn catches_a_crash_that_comes_after_the_handover() {
    let script = script()
        .send("k", 1..=2)
        .handle("a", 1, [1])
        .handle("b", 2, [1]);
    assert_caught!(
        script.crash("a").handle("b", 2, [2]),
        Violation::Repeated { .. }
    );
}

#[test]
fn catches_a_repeat_that_the_stored_progress_had_passed() {
    let script = script()
        .send("k", 1..=2)
        .handle("a", 1, [1, 2])
        .checkpoint(1, 1);
    assert_caught!(
        script.crash("a").handle("b", 2, [1, 2]),
        Violation::RepeatedBelowCheckpoint { .. }
    );
}

#[test]
fn catches_more_repeats_than_are_allowed() {
    let script = script().send("k", 1..=9).handle("a", 1, 1..=9).crash("a");
    let entries = script.handle("b", 2, 4..=9).history.entries();
    let rules = |most| Rules {
        most_repeats: Some(most),
    };
    rules(6).check(&entries).assert_clean();
    let verdict = rules(5).check(&entries);
    assert!(matches!(
        verdict.violations[..],
        [Violation::TooManyRepeats {
            repeats: 6,
            bound: 5,
            ..
        }]
    ));
}

#[test]
fn catches_receipts_out_of_order() {
    let script = script().sent("k", 1).sent("k", 2).stored(1, 2).stored(2, 1);
    let verdict = script.verdict();
    let order = |v: &Violation| matches!(v, Violation::ReceiptOrder { .. });
    assert!(verdict.violations.iter().any(order), "{verdict}");
}

#[test]
fn catches_a_key_that_returns_to_a_partition_that_it_left() {
    let script = script()
        .send("k", [1])
        .at("1")
        .send("k", [2])
        .at("0")
        .send("k", [3]);
    let script = script
        .at("0")
        .handle("a", 1, [1])
        .at("1")
        .handle("a", 1, [2]);
    assert_caught!(
        script.at("0").handle("a", 1, [3]),
        Violation::ReceiptOrder { .. }
    );
}

#[test]
fn catches_a_receipt_that_names_the_place_of_another_record() {
    let script = script().sent("k", 1).sent("l", 2).stored(1, 1).stored(2, 1);
    let verdict = script.handle("a", 1, [1]).verdict();
    let wrong = |v: &Violation| matches!(v, Violation::WrongReceipt { found: 1, .. });
    assert!(verdict.violations.iter().any(wrong), "{verdict}");
}

#[test]
fn catches_an_altered_payload() {
    let script = script().send("k", [1]);
    let mut handling = script.handling("a", 1, 1, 1);
    handling.digest = 77;
    let script = script.record(Event::Began(handling.clone()));
    let outcome = Outcome::Acked;
    assert_caught!(
        script.record(Event::Ended { handling, outcome }),
        Violation::Altered { .. }
    );
}

#[test]
fn catches_a_record_that_nobody_sent() {
    assert_caught!(script().handle("a", 1, [1]), Violation::Phantom { .. });
}

#[test]
fn catches_a_refused_record_that_is_stored() {
    let script = script().sent("k", 1).record(Event::Failed { id: 1 });
    assert_caught!(
        script.handle("a", 1, [1]),
        Violation::FailedYetStored { .. }
    );
}

#[test]
fn catches_a_record_that_is_stored_twice() {
    let script = script().send("k", [1]).handle("a", 1, [1]);
    let handling = script.handling("a", 1, 1, 2);
    let script = script.record(Event::Began(handling.clone()));
    let outcome = Outcome::Acked;
    assert_caught!(
        script.record(Event::Ended { handling, outcome }),
        Violation::StoredTwice { .. }
    );
}

// Good histories.

#[test]
fn allows_a_plain_run() {
    let script = script().send("k", 1..=3).send("l", 4..=6);
    let script = script.begin("a", 1, 1).handle("a", 1, [4]).checkpoint(0, 1);
    let script = script.end("a", 1, 1, Outcome::Acked).checkpoint(1, 1);
    let summary = script
        .handle("a", 1, [2, 5, 3, 6])
        .checkpoint(6, 1)
        .clean()
        .summary;
    assert_eq!(
        (summary.sent, summary.handled, summary.duplicates),
        (6, 6, 0)
    );
}

#[test]
fn allows_retries_dead_letters_and_skips() {
    let script = script().send("k", 1..=3).begin("a", 1, 1);
    let script = script.end("a", 1, 1, Outcome::Failed).begin("a", 1, 1);
    let script = script
        .end("a", 1, 1, Outcome::GaveUp)
        .checkpoint(1, 1)
        .begin("a", 1, 2);
    let script = script.end("a", 1, 2, Outcome::GaveUp).handle("a", 1, [3]);
    let script = script.record(Event::DeadLettered {
        group: GROUP.into(),
        id: 1,
    });
    script
        .record(Event::Skipped {
            group: GROUP.into(),
            id: 2,
        })
        .clean();
}

#[test]
fn allows_repeats_of_what_was_not_checkpointed_after_a_crash() {
    let script = script()
        .send("k", 1..=3)
        .handle("a", 1, [1, 2])
        .checkpoint(1, 1);
    let script = script
        .begin("a", 1, 3)
        .crash("a")
        .end("a", 1, 3, Outcome::Dropped);
    let summary = script
        .handle("b", 2, [2, 3])
        .checkpoint(3, 2)
        .clean()
        .summary;
    assert_eq!(
        (summary.duplicates, summary.crashes, summary.handovers),
        (1, 1, 1)
    );
}

#[test]
fn allows_repeats_behind_a_record_that_was_left_unsettled() {
    let script = script().send("bad", [1]).send("good", [2, 3]);
    let script = script.begin("a", 1, 1).handle("a", 1, [2]);
    let script = script.end("a", 1, 1, Outcome::Failed).left("a");
    script.handle("b", 2, 1..=3).clean();
}

#[test]
fn allows_a_zombie_until_it_is_told() {
    let script = script()
        .send("k", 1..=4)
        .handle("a", 1, [1])
        .begin("a", 1, 2)
        .freeze("a");
    let script = script.handle("b", 2, [1, 2, 3]).checkpoint(3, 2);
    let script = script
        .end("a", 1, 2, Outcome::Acked)
        .begin("a", 1, 3)
        .lost("a", 1);
    script
        .end("a", 1, 3, Outcome::Dropped)
        .handle("b", 2, [4])
        .clean();
}

#[test]
fn allows_a_send_that_timed_out_to_be_stored_twice_or_not() {
    let script = script().sends_fail().sent("k", 1).sent("k", 2).sent("k", 3);
    let script = script
        .stored(1, 5)
        .record(Event::Unknown { id: 2 })
        .stored(3, 7);
    let handled = |script: Script, id, position| {
        let handling = script.handling("a", 1, id, position);
        let script = script.record(Event::Began(handling.clone()));
        let outcome = Outcome::Acked;
        script.record(Event::Ended { handling, outcome })
    };
    let script = handled(script, 1, 4);
    let script = handled(script, 1, 5);
    handled(script, 3, 7).clean();
}

#[test]
fn allows_a_reset_to_repeat_everything() {
    let script = script()
        .send("k", 1..=3)
        .handle("a", 1, 1..=3)
        .checkpoint(3, 1);
    let script = script.reset(false).checkpoint(0, 1);
    script.handle("a", 2, 1..=3).checkpoint(3, 2).clean();
}

#[test]
fn allows_a_reset_to_skip_what_was_sent_before() {
    let script = script().send("k", 1..=3).handle("a", 1, [1]).reset(true);
    script
        .send("k", 4..=5)
        .handle("a", 2, 4..=5)
        .checkpoint(5, 2)
        .clean();
}

#[test]
fn allows_a_group_that_starts_later() {
    let script = script().send("k", 1..=3).handle("a", 1, 1..=3);
    let script = script.record(Event::Subscribed {
        group: "late".into(),
        stream: STREAM.into(),
        everything: false,
    });
    let script = script.send("k", [4]).handle("a", 1, [4]);
    let mut handling = script.handling("x", 1, 4, 4);
    handling.by.group = "late".into();
    let script = script.record(Event::Began(handling.clone()));
    let outcome = Outcome::Acked;
    script.record(Event::Ended { handling, outcome }).clean();
}

#[test]
fn allows_keys_to_move_when_partitions_are_added() {
    let script = script().send("k", 1..=2).record(Event::Remapped {
        stream: STREAM.into(),
    });
    let script = script.at("1").send("k", 3..=4).handle("b", 1, 3..=4);
    script.at("0").handle("a", 1, 1..=2).clean();
}

#[test]
fn allows_a_key_to_go_on_in_a_child() {
    let script = script().send("k", 1..=2).at("1").send("k", 3..=4);
    script
        .at("0")
        .handle("a", 1, 1..=2)
        .at("1")
        .handle("b", 1, 3..=4)
        .clean();
}

#[test]
fn allows_faults_that_are_healed_and_judges_what_follows() {
    let script = script().send("k", 1..=3).freeze("a").handle("a", 1, [1]);
    let script = script.handle("b", 2, [1, 2]);
    let script = script.record(Event::Healed {
        group: GROUP.into(),
    });
    let script = script.handle("a", 3, [3]);
    assert_caught!(script.handle("b", 4, [3]), Violation::Repeated { .. });
}
