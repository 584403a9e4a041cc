//! The commands of the handle.

use millstream_core::{Epoch, Error, ErrorKind, Position};

use super::Member;
use super::renewer::held::{Stage, Write};
use crate::lease::command::{Command, Reply, respond};
use crate::lease::key::LeaseKey;
use crate::lease::row::Progress;

/// The state of a leave.
#[derive(Debug)]
pub(super) struct Leaving {
    reply: Reply,
    /// The withdrawals and nudges in flight.
    pub(super) open: usize,
    /// Whether a lease expired before its release was stored.
    pub(super) expired: bool,
}

impl Member {
    pub(super) fn on_command(&mut self, command: Command) {
        match command {
            Command::Checkpoint {
                lease,
                epoch,
                position,
                reply,
            } => self.checkpoint(&lease, epoch, position, reply),
            Command::Complete {
                lease,
                epoch,
                children,
                reply,
            } => self.complete(&lease, epoch, children, reply),
            Command::Release {
                lease,
                epoch,
                reply,
            } => self.release(&lease, epoch, reply),
            Command::NoteTip { lease, epoch, tip } => {
                let key = self.in_use(&lease, epoch);
                if let Some(held) = key.and_then(|key| self.held.get_mut(&key)) {
                    held.tip = Some(tip);
                }
            }
            Command::Leave { reply } => self.leave(reply),
        }
    }

    fn checkpoint(&mut self, lease: &LeaseKey, epoch: Epoch, position: Position, reply: Reply) {
        let key = self.in_use(lease, epoch);
        let Some(held) = key.and_then(|key| self.held.get_mut(&key)) else {
            return respond(reply, Err(Self::fenced("checkpoint", lease)));
        };
        match held.row.progress {
            Progress::After(stored) if stored == position => respond(reply, Ok(())),
            Progress::After(stored) if stored > position => {
                let message = format!("the checkpoint {position} is before {stored}, the last one");
                let error = Error::new(ErrorKind::Invalid, "checkpoint", message);
                respond(reply, Err(error.with_partition(&Self::partition(lease))));
            }
            _ => held.waiting.push_back(Write::Store {
                progress: Progress::After(position),
                reply,
            }),
        }
    }

    fn release(&mut self, lease: &LeaseKey, epoch: Epoch, reply: Reply) {
        let key = self.in_use(lease, epoch);
        let Some(held) = key.and_then(|key| self.held.get_mut(&key)) else {
            return respond(reply, Err(Self::fenced("release", lease)));
        };
        held.stage = Stage::Ceded;
        held.waiting
            .push_back(Write::Release { reply: Some(reply) });
    }

    fn leave(&mut self, reply: Reply) {
        self.leaving = Some(Leaving {
            reply,
            open: 0,
            expired: false,
        });
        self.withdraw_asks();
        for held in self.held.values_mut() {
            if held.stage != Stage::Ceded {
                held.stage = Stage::Ceded;
                held.waiting.push_back(Write::Release { reply: None });
            }
        }
    }

    /// Ends the membership when nothing is held any more, and the others are notified.
    pub(super) fn leave_if_released(&mut self) {
        let busy = |leaving: &Leaving| leaving.open > 0;
        if !self.held.is_empty() || !self.taking.is_empty() || self.leaving.iter().any(busy) {
            return;
        }
        // Not before all are free: as long as this member has a lease, the balance counts it.
        if let Some(leaving) = self.leaving.as_mut().filter(|_| !self.news.is_empty()) {
            leaving.open = 1;
            let nudges = self.nudges();
            return self.fly(async move {
                nudges.await;
                |member: &mut Self| member.told()
            });
        }
        if let Some(leaving) = self.leaving.take() {
            let message = "the table could not be told in time; the leases have expired by now";
            let error = Error::new(ErrorKind::Timeout, "leave", message);
            respond(
                leaving.reply,
                if leaving.expired { Err(error) } else { Ok(()) },
            );
        }
        self.done = true;
    }

    /// Records that a request for which a leave waits has ended.
    pub(super) fn told(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.open -= 1;
        }
    }
}
