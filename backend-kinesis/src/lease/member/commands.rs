//! What the handle asks for.

use millstream::{Epoch, Error, ErrorKind, Position, Result};

use super::Member;
use super::held::{Reply, Stage, Write};
use crate::lease::key::LeaseKey;
use crate::lease::row::{Progress, Tip};
use crate::stream::Shard;

/// A call of the handle.
#[derive(Debug)]
pub(in crate::lease) enum Command {
    Checkpoint {
        lease: LeaseKey,
        epoch: Epoch,
        position: Position,
        reply: Reply,
    },
    Complete {
        lease: LeaseKey,
        epoch: Epoch,
        children: Vec<Shard>,
        reply: Reply,
    },
    Release {
        lease: LeaseKey,
        epoch: Epoch,
        reply: Reply,
    },
    NoteTip {
        lease: LeaseKey,
        epoch: Epoch,
        tip: Tip,
    },
    Leave {
        reply: Reply,
    },
}

/// A member that gives up all that it has.
#[derive(Debug)]
pub(super) struct Leaving {
    reply: Reply,
    /// Questions that are being taken back.
    pub(super) asks: usize,
    /// Whether a lease expired before the table could be told.
    pub(super) expired: bool,
}

impl Member {
    pub(super) fn obey(&mut self, command: Command) {
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
            return answer(reply, Err(Self::fenced("checkpoint", lease)));
        };
        match held.row.progress {
            Progress::After(stored) if stored == position => answer(reply, Ok(())),
            Progress::After(stored) if stored > position => {
                let message = format!("the checkpoint {position} is before {stored}, the last one");
                let error = Error::new(ErrorKind::Invalid, "checkpoint", message);
                answer(reply, Err(error.with_partition(&Self::partition(lease))));
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
            return answer(reply, Err(Self::fenced("release", lease)));
        };
        held.stage = Stage::Ceded;
        held.waiting
            .push_back(Write::Release { reply: Some(reply) });
    }

    fn leave(&mut self, reply: Reply) {
        self.leaving = Some(Leaving {
            reply,
            asks: 0,
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

    /// Ends the membership when nothing is held any more.
    pub(super) fn leave_if_released(&mut self) {
        let busy = |leaving: &Leaving| leaving.asks > 0;
        if !self.held.is_empty() || !self.taking.is_empty() || self.leaving.iter().any(busy) {
            return;
        }
        if let Some(leaving) = self.leaving.take() {
            let message = "the table could not be told in time; the leases have expired by now";
            let error = Error::new(ErrorKind::Timeout, "leave", message);
            answer(
                leaving.reply,
                if leaving.expired { Err(error) } else { Ok(()) },
            );
        }
        self.done = true;
    }
}

pub(super) fn answer(reply: Reply, answer: Result<()>) {
    // Who does not wait any more does not want to know.
    let _ = reply.send(answer);
}

/// Where a call goes when there is no member any more.
pub(in crate::lease) fn closed(operation: &'static str) -> Error {
    Error::new(
        ErrorKind::Closed,
        operation,
        "the member has left, or has failed",
    )
}
