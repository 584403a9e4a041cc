//! Which bugs are planted, and which case finds each.

/// One bug of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// All records without a key go to one partition.
    KeylessInOnePartition,
    /// `next` awaits between taking events and returning them.
    NextIsNotCancelSafe,
    /// `next` returns when there is nothing to report.
    NextReturnsNoEvent,
    /// The results of a checkpoint come in reverse order.
    CheckpointResultsAreReversed,
    /// Only the first update of a checkpoint is stored; the others are acknowledged.
    OnlyFirstUpdateIsStored,
    /// An update that is refused is acknowledged.
    RefusedUpdateIsAcknowledged,
    /// What is fenced is reported as unavailable.
    FencedIsUnavailable,
    /// The owner of an update is compared, its epoch is not.
    EpochIsNotCompared,
    /// A checkpoint whose call was dropped is stored after later ones.
    DroppedCheckpointIsStoredLate,
    /// Records of a partition come after its `Revoking`.
    RecordsFollowRevoking,
    /// A member may drain for as long as it likes.
    DrainIsNotLimited,
    /// `Revoking` leaves 100 times the drain of the member's options.
    RevokingLeavesTooLong,
    /// `Assigned` never has a checkpoint.
    AssignedHasNoCheckpoint,
    /// A member is alive only while `next` is called.
    HeartbeatsNeedNext,
    /// Heartbeats are a task of the application's runtime.
    HeartbeatsNeedTheRuntime,
    /// A member that is cut off reports the loss when it is back.
    LossIsReportedLate,
    /// A step of which some partitions are lost is fenced as a whole.
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
}

/// A bug, and how it is found.
#[derive(Debug)]
pub(crate) struct Mutant {
    pub(crate) bug: Bug,
    /// The case that finds it.
    pub(crate) case: &'static str,
    /// A part of what the case says then.
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
];
