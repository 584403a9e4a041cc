//! Histories that the checker must reject.

use conformance::checker::{Rules, Violation};
use conformance::history::{Event, Outcome};
use millstream_core::Epoch;

use crate::script::script;

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
         began although a of group g (epoch 1 of s/0) had settled it and it was not faulted"
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
fn catches_a_payload_that_is_altered_at_the_second_attempt() {
    let script = script().send("k", [1]).begin("a", 1, 1);
    let script = script.end("a", 1, 1, Outcome::Failed);
    let mut handling = script.handling("a", 1, 1, 1);
    (handling.attempt, handling.digest) = (2, 77);
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

#[test]
fn catches_a_stream_created_again_that_is_read_from_the_old_place() {
    let script = script().send("k", 1..=2).handle("a", 1, [1, 2]);
    let script = script.recreated().send("l", [11]).send("k", [12]);
    let violation = script.handle("a", 2, [12]).caught();
    assert_eq!(
        violation.to_string(),
        "lost: group g never settled record 11 at s~2/0@11"
    );
}

#[test]
fn catches_progress_that_is_kept_for_a_stream_created_again() {
    let script = script().send("k", 1..=2).handle("a", 1, [1, 2]);
    let script = script.recreated().send("k", [11]).checkpoint(11, 1);
    let verdict = script.handle("a", 2, [11]).verdict();
    assert!(
        matches!(
            verdict.violations[0],
            Violation::CheckpointPastUnsettled { .. }
        ),
        "{verdict}"
    );
}

#[test]
fn catches_a_record_of_a_deleted_stream_in_the_next_one() {
    let script = script().send("k", [1]).recreated();
    let verdict = script.handle("a", 1, [1]).verdict();
    assert!(
        matches!(verdict.violations[0], Violation::Altered { .. }),
        "{verdict}"
    );
}

#[test]
fn catches_a_checkpoint_past_an_unsettled_record_of_a_deleted_stream() {
    let script = script().send("k", 1..=2).checkpoint(1, 1).recreated();
    assert_caught!(script, Violation::CheckpointPastUnsettled { .. });
}

#[test]
fn catches_epochs_that_begin_anew_with_a_stream_created_again() {
    let script = script().send("k", [1]).handle("a", 3, [1]).recreated();
    let script = script.send("k", [11]).handle("a", 3, [11]);
    assert_caught!(
        script,
        Violation::EpochNotGrown {
            before: Epoch(3),
            ..
        }
    );
}
