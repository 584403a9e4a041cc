//! Output that the broker permanently refuses, because one record of it is too large or invalid.
//!
//! The refused transaction is published in parts until the deliveries are found whose output is
//! refused alone. Such a delivery has failed, as if its handler had returned the failure: the failure policy
//! skips it, dead-letters it or stops the consumer. Until it is settled, nothing behind it in its
//! partition is published or checkpointed, and other partitions continue.
//!
//! Rejected: ending the membership. The next owner would meet the same record, and so on through
//! all members.

use std::iter::once;

use super::Member;
use super::transaction::Transaction;
use crate::consumer::runtime::bisection::Share;
use crate::consumer::runtime::handler::Handler;
use crate::consumer::runtime::output_buffer::Outputs;
use crate::consumer::runtime::refused_delivery::RefusedDelivery;
use crate::consumer::runtime::run::Run;
use crate::driver::CheckpointUpdate;
use crate::telemetry::{Causes, event};
use crate::{BatchFailure, Error, Failure};

impl<W: Handler> Member<W> {
    /// Handles a refused transaction, without the output of partitions that were lost in the meantime. All of
    /// it was put back.
    pub(super) fn on_refused(&mut self, shares: &[Share], error: &Error, is_part: bool) {
        if !is_part {
            event!(
                debug, "millstream.consumer.output_refused", group = %self.group,
                member = self.membership.id(), reason = %Causes(error),
                "the broker refused a transaction for one of its records, publishing it in parts"
            );
        }
        self.publish_in_parts(shares);
    }

    /// Splits a transaction. All of it was put back.
    pub(super) fn publish_in_parts(&mut self, shares: &[Share]) {
        for share in shares {
            // Progress without output was not stored with it, and is stored by the next checkpoint.
            let assignment = &mut self.assignments[share.index];
            self.checkpointer.settled(assignment, share.index, 0);
            assignment.is_suspect |= share.deliveries > 0;
        }
        let with_output = shares.iter().filter(|share| share.deliveries > 0);
        self.bisection.refused(with_output.copied().collect());
    }

    /// Handles the refusal of the output of a single delivery.
    pub(super) fn on_refused_alone(&mut self, index: usize, outputs: Outputs, error: Error) {
        self.release_output(outputs.size());
        self.assignments[index].outputs_mut().published();
        self.part_is_done(index);
        let Some(origin) = outputs.last().cloned() else {
            return;
        };
        let delivery = (origin.number, origin.delivery.clone());
        self.assignments[index].refused = Some(Box::new(RefusedDelivery::new(origin)));
        let run = Run::new(self.now, once(delivery));
        self.on_failure(index, run, BatchFailure::whole(Failure::of_send(error)));
        self.mark_runnable(index);
    }

    /// Continues behind a delivery whose output was refused, when the failure policy has settled it.
    pub(super) fn settle_refused(&mut self, index: usize) {
        let assignment = &mut self.assignments[index];
        assignment.refused = None;
        self.checkpointer.settled(assignment, index, 0);
        self.resume_below_low_watermark(index);
        self.check_release(index);
        self.mark_runnable(index);
    }

    /// Takes the next part of a refused transaction.
    pub(super) fn part_of_refused(&mut self) -> Option<Transaction> {
        let assignments = &self.assignments;
        let held = |index: usize| assignments[index].refused.is_some();
        let shares = self.bisection.next(held)?;
        let mut transaction = Transaction::new(true);
        for share in shares {
            let assignment = &mut self.assignments[share.index];
            let outputs = assignment.outputs_mut().take_first(share.deliveries);
            let last = outputs.last().expect("a share has a delivery");
            let update = CheckpointUpdate {
                partition: assignment.partition().clone(),
                epoch: assignment.epoch(),
                position: last.delivery.position(),
            };
            transaction.add(update, outputs);
        }
        Some(transaction)
    }

    /// Lets a partition be published as a whole again, if no part of it is left. Records that are settled
    /// behind its last part are stored by the next checkpoint.
    pub(super) fn part_is_done(&mut self, index: usize) {
        let assignment = &mut self.assignments[index];
        assignment.is_suspect = self.bisection.contains(index);
        self.checkpointer.settled(assignment, index, 0);
    }
}
