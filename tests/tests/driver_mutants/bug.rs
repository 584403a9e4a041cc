//! The planted bugs, and the case that finds each of them.

/// One bug of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// All records without a key go to one partition.
    KeylessInOnePartition,
    /// The records of one key have several routes.
    RouteIsNotOfTheKey,
    /// `next` awaits between taking events and returning them.
    NextIsNotCancelSafe,
    /// `next` returns without an event.
    NextReturnsNoEvent,
    /// The results of a checkpoint are in reverse order.
    CheckpointResultsAreReversed,
    /// Only the first update of a checkpoint is stored; the others are acknowledged.
    OnlyFirstUpdateIsStored,
    /// A rejected update is acknowledged.
    RefusedUpdateIsAcknowledged,
    /// A fenced update is reported as unavailable.
    FencedIsUnavailable,
    /// The owner of an update is compared, but its epoch is not.
    EpochIsNotCompared,
    /// A checkpoint whose call was dropped is stored after later ones.
    DroppedCheckpointIsStoredLate,
    /// Records of a partition follow its `Revoking`.
    RecordsFollowRevoking,
    /// A drain has no time limit.
    DrainIsNotLimited,
    /// `Revoking` allows 100 times the drain of the member's options.
    RevokingLeavesTooLong,
    /// `Assigned` never has a checkpoint.
    AssignedHasNoCheckpoint,
    /// The session of a member is kept only while `next` is called.
    HeartbeatsNeedNext,
    /// Heartbeats are a task of the application's runtime.
    HeartbeatsNeedTheRuntime,
    /// A member that is cut off reports the loss when it is connected again.
    LossIsReportedLate,
    /// A step of which only some partitions are lost is fenced as a whole.
    PartlyLostStepIsFenced,
    /// A step whose response was lost is stored again.
    StepIsRepeated,
    /// `Lag` is never reported.
    LagIsNotReported,
    /// A lag has no age.
    LagHasNoTime,
    /// The progress of a group is kept when its stream is deleted, and applies to the next one of the name.
    ProgressOutlivesItsStream,
    /// A loss of the first records of a stream is not reported.
    FirstDataLossIsNotReported,
    /// `DataLoss` does not name the last position before the gap.
    DataLossHasNoPosition,
    /// A reset returns while members still drain.
    ResetReturnsEarly,
    /// The position at which a group starts is shown as settled.
    StartIsShownAsSettled,
    /// The progress in a stream that was deleted is still shown.
    DeletedProgressIsShown,
    /// A call of `next` may return any number of bytes.
    BatchBytesAreIgnored,
    /// The lag of a paused partition is not reported.
    LagOfAPauseIsNotReported,
    /// All partitions are redistributed when a member joins.
    PlanIsNotSticky,
    /// A checkpoint is acknowledged before it is stored, and a release or the end overtakes it.
    CheckpointIsAcknowledgedEarly,
    /// The epoch of a partition stays the same in the next assignment.
    EpochIsReused,
    /// Epochs start again in a new stream of the same name.
    EpochsRestart,
    /// `Start::At` compares the time at which a record was stored.
    StartIsByTimeOfStorage,
    /// A group that starts at a time in the future passes over all records until then.
    FutureStartSkipsRecords,
    /// A heartbeat that is too late renews a lost session.
    LostLeaseIsRenewed,
    /// The session begins with a response that took as long as a session, instead of its request.
    SessionIsCountedTooLate,
    /// A failed heartbeat loses everything.
    HeartbeatIsNotRepeated,
    /// A member that loses everything reports only one partition.
    LossIsReportedInPart,
    /// A loss does not wake the waiting call of `next`.
    LostWaitsForRecords,
    /// A member that was cut off never owns a partition again.
    MemberDoesNotJoinAgain,
    /// A record without a payload is stored with an empty one.
    TombstoneIsAnEmptyPayload,
    /// A header without a value is stored with an empty one.
    NullHeaderIsEmpty,
    /// Timestamps are stored in seconds.
    TimestampIsInSeconds,
}

/// A bug, and the case that finds it.
#[derive(Debug)]
pub(crate) struct Mutant {
    pub(crate) bug: Bug,
    /// The case that finds it.
    pub(crate) case: &'static str,
    /// A part of the message with which the case fails.
    pub(crate) reason: &'static str,
}

const fn mutant(bug: Bug, case: &'static str, reason: &'static str) -> Mutant {
    Mutant { bug, case, reason }
}

/// All mutants.
pub(crate) const MUTANTS: &[Mutant] = &[
    mutant(
        Bug::KeylessInOnePartition,
        "c01_records_without_key_are_spread",
        "records without a key go to {",
    ),
    mutant(
        Bug::RouteIsNotOfTheKey,
        "c01_records_of_one_key_have_one_route",
        "have the routes {",
    ),
    mutant(
        Bug::NextIsNotCancelSafe,
        "c02_dropped_next_loses_no_event",
        "timed out waiting for: a has every record",
    ),
    mutant(
        Bug::NextReturnsNoEvent,
        "c02_next_returns_at_least_one_event",
        "returned no event",
    ),
    mutant(
        Bug::CheckpointResultsAreReversed,
        "c04_each_update_of_a_checkpoint_has_its_result",
        "a owns the first and the third partition",
    ),
    mutant(
        Bug::OnlyFirstUpdateIsStored,
        "c04_each_update_of_a_checkpoint_has_its_result",
        "a owns the first and the third partition",
    ),
    mutant(
        Bug::RefusedUpdateIsAcknowledged,
        "c04_each_update_of_a_checkpoint_has_its_result",
        "a owns the first and the third partition",
    ),
    mutant(
        Bug::FencedIsUnavailable,
        "c04_each_update_of_a_checkpoint_has_its_result",
        "a checkpoint gets no certain result",
    ),
    mutant(
        Bug::EpochIsNotCompared,
        "c07_checkpoint_of_an_earlier_epoch_is_fenced",
        "is its last: [Ok(())]",
    ),
    mutant(
        Bug::DroppedCheckpointIsStoredLate,
        "c04_dropped_checkpoint_undoes_no_later_one",
        "an earlier checkpoint, whose call was dropped, has undone it",
    ),
    mutant(
        Bug::RecordsFollowRevoking,
        "c05_no_record_follows_revoking",
        "came to a after its end",
    ),
    mutant(
        Bug::DrainIsNotLimited,
        "c05_member_that_drains_for_too_long_is_fenced",
        "timed out waiting for: a, which does not release the partition",
    ),
    mutant(
        Bug::RevokingLeavesTooLong,
        "c05_member_that_drains_for_too_long_is_fenced",
        "the drain of JoinOptions is",
    ),
    mutant(
        Bug::AssignedHasNoCheckpoint,
        "c06_assignment_carries_the_checkpoint",
        "is its stored checkpoint",
    ),
    mutant(
        Bug::HeartbeatsNeedNext,
        "c08_heartbeats_continue_while_next_is_not_called",
        "a, whose next() was not called, lost",
    ),
    mutant(
        Bug::HeartbeatsNeedTheRuntime,
        "c08_handler_that_blocks_its_thread_keeps_its_membership",
        "while a handler of a blocked its thread",
    ),
    mutant(
        Bug::LossIsReportedLate,
        "c07_member_that_is_cut_off_reports_the_loss_itself",
        "and reported the loss only when it was back",
    ),
    mutant(
        Bug::PartlyLostStepIsFenced,
        "c07_step_of_which_a_part_is_lost_is_retryable",
        "so the error must be retryable",
    ),
    mutant(
        Bug::StepIsRepeated,
        "pipeline_step_whose_response_is_lost_is_stored_once",
        "each step is stored once",
    ),
    mutant(
        Bug::LagIsNotReported,
        "operate_lag_of_a_quiet_partition_is_reported",
        "timed out waiting for: it knows that nothing is left",
    ),
    mutant(
        Bug::LagHasNoTime,
        "operate_lag_of_a_reader_at_the_end_is_zero",
        "timed out waiting for: it has every record, and knows that nothing is left",
    ),
    mutant(
        Bug::ProgressOutlivesItsStream,
        "operate_progress_is_deleted_with_its_stream",
        "timed out waiting for a delivery",
    ),
    mutant(
        Bug::FirstDataLossIsNotReported,
        "c10_earliest_is_resolved_at_group_creation",
        "the first records were there when the group started",
    ),
    mutant(
        Bug::DataLossHasNoPosition,
        "operate_data_loss_names_the_last_record_before_it",
        "does not say that the records after",
    ),
    mutant(
        Bug::ResetReturnsEarly,
        "operate_reset_shows_the_new_position_at_once",
        "it was moved",
    ),
    mutant(
        Bug::StartIsShownAsSettled,
        "operate_a_start_is_no_settled_position",
        "nothing was settled",
    ),
    mutant(
        Bug::DeletedProgressIsShown,
        "operate_progress_of_a_deleted_stream_is_not_shown",
        "no progress of the deleted stream is shown for the new one",
    ),
    mutant(
        Bug::BatchBytesAreIgnored,
        "c08_next_is_bounded_by_bytes",
        "bytes, batch_bytes is",
    ),
    mutant(
        Bug::LagOfAPauseIsNotReported,
        "operate_lag_of_a_paused_partition_is_reported",
        "timed out waiting for: a lag of the records that",
    ),
    mutant(
        Bug::PlanIsNotSticky,
        "c05_rebalance_moves_no_more_than_it_must",
        "a keeps two partitions in their epochs when b joins",
    ),
    mutant(
        Bug::CheckpointIsAcknowledgedEarly,
        "c06_assignment_carries_the_checkpoint",
        "is its stored checkpoint",
    ),
    mutant(
        Bug::EpochIsReused,
        "c07_checkpoint_of_an_earlier_epoch_is_fenced",
        "after epoch Some(Epoch(",
    ),
    mutant(
        Bug::EpochsRestart,
        "operate_epochs_grow_over_a_deletion",
        "a sink that has seen epoch",
    ),
    mutant(
        Bug::StartIsByTimeOfStorage,
        "c10_at_compares_the_timestamps_of_readers",
        "more than [",
    ),
    mutant(
        Bug::FutureStartSkipsRecords,
        "c10_at_a_time_in_the_future_is_latest",
        "timed out waiting for a delivery",
    ),
    mutant(
        Bug::LostLeaseIsRenewed,
        "c07_member_that_is_cut_off_reports_the_loss_itself",
        "after epoch Some(Epoch(",
    ),
    mutant(
        Bug::SessionIsCountedTooLate,
        "c07_member_that_is_cut_off_reports_the_loss_itself",
        "when it reported the loss",
    ),
    mutant(
        Bug::HeartbeatIsNotRepeated,
        "c07_short_freeze_loses_no_partition",
        "for less than a session, and lost",
    ),
    mutant(
        Bug::LossIsReportedInPart,
        "c07_member_that_is_cut_off_reports_the_loss_itself",
        "timed out waiting for: a reports the loss of all its partitions",
    ),
    mutant(
        Bug::LostWaitsForRecords,
        "c05_member_that_drains_for_too_long_is_fenced",
        "timed out waiting for: a, which does not release the partition, has lost it to b",
    ),
    mutant(
        Bug::MemberDoesNotJoinAgain,
        "c07_member_that_was_cut_off_joins_again",
        "timed out waiting for: a, which is back, owns a partition in a new epoch",
    ),
    mutant(
        Bug::TombstoneIsAnEmptyPayload,
        "c14_tombstones",
        "key and payload are as they were sent",
    ),
    mutant(
        Bug::NullHeaderIsEmpty,
        "c14_null_headers",
        "the headers are as they were sent",
    ),
    mutant(Bug::TimestampIsInSeconds, "c14_timestamps", "left:"),
];
