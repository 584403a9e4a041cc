//! Tests a member in random interleavings of events, and in some selected ones.

mod world;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Epoch, Error, ErrorKind};
use proptest::prelude::*;
use rdkafka::error::RDKafkaErrorCode;

use self::world::{Commit, DRAIN, Step, World, name, step};
use super::*;
use crate::group::note::Note;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nothing_is_passed_and_nothing_is_left_unanswered(
        is_static: bool,
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new(is_static);
        for step in steps {
            world.step(step);
        }
        world.settle();
        prop_assert!(!world.is_failed);
        prop_assert_eq!(&world.unanswered, &VecDeque::new());
        prop_assert!(world.checkpoints.is_empty(), "{:?}", world.checkpoints);
        let held: BTreeSet<_> = world.held.keys().copied().collect();
        prop_assert!(held.is_subset(&world.assigned), "{:?}: {:?}", held, world.assigned);
        // Only a fenced member has partitions that the runtime does not have.
        world.step(Step::Revoke(world.assigned.clone()));
        world.settle();
        prop_assert!(world.held.is_empty() && world.assigned.is_empty());
    }
}

/// Returns a member that has partition 0 from its beginning.
fn assigned() -> World {
    let mut world = World::new(false);
    world.step(Step::Assign([0].into()));
    world.step(Step::Answer);
    assert_eq!(world.held.len(), 1);
    world
}

#[test]
fn records_that_are_forwarded_no_more_end_the_forward_within_seconds() {
    let mut world = assigned();
    world.step(Step::RefuseSeek(0));
    let is_waiting = |world: &World| world.state.may_wait(world.now) <= WAIT_FOR_REASSIGNED;
    assert!(is_waiting(&world));
    world.step(Step::Wait(10_000));
    assert!(!is_waiting(&world), "a quiet partition wakes nobody");
}

#[test]
fn a_place_that_was_replaced_while_it_was_stored_is_not_read() {
    let mut world = assigned();
    world.step(Step::Fetch(0, 12));
    world.step(Step::Reset(0, 5));
    world.step(Step::Release(0));
    assert!(world.in_flight.is_some(), "the place is being stored");
    world.step(Step::Reset(0, 9));
    world.step(Step::Committed(Commit::Stored));
    assert!(
        world.held.is_empty(),
        "the second place is to be stored first"
    );
    world.step(Step::Committed(Commit::Stored));
    assert_eq!(world.held[&0].delivered, 9);
    assert_eq!(world.stored[&0].next, 9);
    world.step(Step::Fetch(0, 2));
    assert_eq!(
        world.held[&0].delivered, 11,
        "what was read before is read again"
    );
}

#[test]
fn a_deferred_checkpoint_is_stored_in_the_next_generation() {
    let mut world = assigned();
    world.step(Step::Fetch(0, 3));
    world.step(Step::Checkpoint(0, 3));
    let refused = Commit::Refused(RDKafkaErrorCode::IllegalGeneration);
    world.step(Step::Committed(refused));
    assert!(
        world.in_flight.is_none(),
        "it waits for the next generation"
    );
    world.step(Step::Assign([1].into()));
    assert!(world.in_flight.is_some());
    world.step(Step::Committed(Commit::Stored));
    assert_eq!(world.stored[&0].next, 3);
    assert!(world.checkpoints.is_empty());
}

#[test]
fn a_refused_checkpoint_of_a_drain_is_sent_again_soon() {
    let mut world = assigned();
    world.step(Step::Fetch(0, 3));
    world.step(Step::Revoke([0].into()));
    world.step(Step::Checkpoint(0, 3));
    let refused = Commit::Refused(RDKafkaErrorCode::IllegalGeneration);
    world.step(Step::Committed(refused));
    assert!(world.in_flight.is_none(), "it waits for a moment");
    world.step(Step::Wait(200));
    assert!(world.in_flight.is_some());
    world.step(Step::Committed(Commit::Stored));
    assert_eq!(world.stored[&0].next, 3);
}

#[test]
fn a_claim_is_stored_before_a_static_member_reads() {
    let mut world = World::new(true);
    let stored = Progress {
        note: Note {
            epoch: Some(Epoch(7)),
            ..Note::default()
        },
        ..Progress::at(4)
    };
    world.stored.insert(0, stored);
    world.step(Step::Assign([0].into()));
    world.step(Step::Answer);
    assert!(world.held.is_empty());
    world.step(Step::Committed(Commit::Stored));
    let held = &world.held[&0];
    assert_eq!(world.stored[&0].note.claim, Some(held.epoch));
    assert!(held.epoch > Epoch(7));
}

#[test]
fn identity_is_asked_for_when_a_revocation_lasts() {
    let mut world = assigned();
    world.step(Step::Revoke([0].into()));
    assert!(world.held[&0].is_draining);
    world.state.on_time(world.now + Duration::from_millis(600));
    let effects = world.state.take_effects();
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Identify)),
        "{effects:?}"
    );
    // Without an id the session is over.
    world.state.on_identity(None, world.now);
    world.carry_out();
    assert!(world.held.is_empty(), "the runtime has lost it");
}

#[test]
fn group_of_failures_is_named() {
    let mut world = assigned();
    let gone = Finding::NoTopic(Arc::from("s"));
    world.state.on_finding(gone, world.now);
    let effects = world.state.take_effects();
    let [Effect::Fail(error)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(
        (error.kind(), error.group()),
        (ErrorKind::NotFound, Some("g"))
    );
}

#[test]
fn assignment_that_is_refused_ends_the_member() {
    for is_lost in [true, false] {
        let mut world = assigned();
        let refused = Error::new(ErrorKind::Unavailable, "join", "refused");
        world.state.on_assignment_refused(refused, is_lost);
        world.carry_out();
        assert_eq!(world.is_failed, !is_lost);
    }
}

#[test]
fn assignment_that_is_lost_before_it_is_answered_is_not_drained() {
    let mut world = World::new(false);
    world.step(Step::Assign([0, 1].into()));
    world.step(Step::LoseSession);
    world.step(Step::Answer);
    assert!(world.held.is_empty(), "{:?}", world.held);
    assert!(world.unanswered.is_empty() && world.assigned.is_empty());
}

#[test]
fn partition_is_assigned_anew_when_no_rebalance_event_waits() {
    let mut world = World::new(false);
    world.step(Step::Assign([0, 1].into()));
    world.step(Step::Answer);
    world.step(Step::Revoke([1].into()));
    world.step(Step::RefuseSeek(0));
    world.step(Step::Answer);
    assert_eq!(world.reassigned, 0, "the revocation is not answered");
    world.step(Step::Release(1));
    world.step(Step::Answer);
    assert_eq!(world.reassigned, 1);
    // librdkafka has received an event that the member has not polled yet.
    world.state.on_reassign_deferred(name(0));
    world.step(Step::Wait(0));
    world.step(Step::Answer);
    assert_eq!(world.reassigned, 2);
}

#[test]
fn a_drain_for_a_reset_may_take_its_whole_time() {
    let mut world = assigned();
    world.step(Step::Reset(0, 5));
    world.now += DRAIN;
    world.step(Step::Wait(100));
    assert!(world.held[&0].is_draining, "its release is on the way");
    world.step(Step::Release(0));
    world.step(Step::Committed(Commit::Stored));
    assert_eq!(world.held[&0].delivered, 5);
}

#[test]
fn a_place_that_was_not_stored_is_stored_again_though_no_reset_is_read() {
    let mut world = assigned();
    world.step(Step::Reset(0, 5));
    world.step(Step::Release(0));
    let refused = Commit::Refused(RDKafkaErrorCode::RequestTimedOut);
    world.step(Step::Committed(refused));
    assert!(world.in_flight.is_none());
    world.now += Duration::from_secs(1);
    world.state.commit(world.now);
    world.carry_out();
    assert!(world.in_flight.is_some());
    world.step(Step::Committed(Commit::Stored));
    assert_eq!(world.held[&0].delivered, 5);
}
