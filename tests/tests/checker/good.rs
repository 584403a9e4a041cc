//! Histories that the checker must accept.

use conformance::checker::{Violation, check};
use conformance::history::{Event, Outcome};
use millstream_core::Partition;

use crate::script::{GROUP, STREAM, Script, script};

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
fn nobody_owes_what_retention_has_removed() {
    let trimmed = |to: u64| Event::DataLoss {
        partition: Partition::new(STREAM, "0"),
        earliest: to.into(),
    };
    let passed = || script().send("k", 1..=4).handle("a", 1, [1, 4]);
    passed().record(trimmed(4)).clean();
    let found = check(&passed().record(trimmed(3)).history.entries()).violations;
    let lost = |violation: &Violation| matches!(violation, Violation::Lost { record, .. } if record.id == 3);
    assert!(found.iter().any(lost), "{found:?}");
    let gone = |violation: &Violation| matches!(violation, Violation::Lost { record, .. } if record.id == 2);
    assert!(!found.iter().any(gone), "{found:?}");
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

#[test]
fn allows_a_stream_that_is_created_again_to_begin_anew() {
    let script = script()
        .send("k", 1..=3)
        .handle("a", 1, [1])
        .checkpoint(1, 1);
    // The records that the first stream still held are gone; the next one has the same positions.
    let script = script.recreated().sent("k", 11).stored(11, 1);
    let handling = script.handling("a", 2, 11, 1);
    let script = script.record(Event::Began(handling.clone()));
    let script = script.record(Event::Ended {
        handling,
        outcome: Outcome::Acked,
    });
    script.checkpoint(1, 2).clean();
}
