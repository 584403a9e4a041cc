//! A joining member, until the group has let it in and everything is stored that it must store as a member.

use std::time::Instant;

use millstream_core::{Error, Result};
use tokio::sync::oneshot;

use super::initial_offsets::{InitialOffsets, Next};
use super::question::Question;
use crate::config::Protocol;
use crate::native::identity::Identity;

/// The wait of a joining caller.
#[derive(Debug)]
pub(crate) struct Joining {
    protocol: Protocol,
    pub(crate) initial_offsets: InitialOffsets,
    /// Receives the id of the member. `None` once the id is sent.
    joined: Option<oneshot::Sender<Result<String>>>,
}

impl Joining {
    pub(crate) fn new(
        protocol: Protocol,
        initial_offsets: InitialOffsets,
        joined: oneshot::Sender<Result<String>>,
    ) -> Self {
        Self {
            protocol,
            initial_offsets,
            joined: Some(joined),
        }
    }

    /// Returns whether the member is still joining.
    pub(crate) fn is_waiting(&self) -> bool {
        self.joined.is_some()
    }

    /// Returns whether the member is still joining, and the group may have let it in. `generation` is the one of its
    /// last assignment.
    pub(crate) fn may_be_let_in(&self, generation: i32) -> bool {
        let may_be = match self.protocol {
            // Each rebalance ends with an assignment, even if it is empty.
            Protocol::Cooperative => generation > 0,
            // The assignment may be empty, and no event reports that.
            Protocol::Consumer => true,
        };
        self.joined.is_some() && may_be
    }

    /// Handles the member's identity in its group. Returns the next question to ask.
    pub(crate) fn on_identity(
        &mut self,
        identity: Option<Identity>,
        generation: i32,
        now: Instant,
    ) -> Option<Question> {
        let is_member = identity.as_ref().is_some_and(Identity::is_member);
        if !self.may_be_let_in(generation) || (self.protocol == Protocol::Consumer && !is_member) {
            return None;
        }
        match self.initial_offsets.next(now) {
            Next::Look(names) => Some(Question::Unstored(names)),
            Next::Wait => None,
            Next::Done => {
                let identity = identity?;
                if let Some(joined) = self.joined.take() {
                    // The caller may have given up. The member then leaves.
                    let _ = joined.send(Ok(identity.member));
                }
                None
            }
        }
    }

    /// Ends the wait with an error.
    pub(crate) fn fail(&mut self, error: &Error) {
        if let Some(joined) = self.joined.take() {
            // The caller may have given up. The member then leaves.
            let _ = joined.send(Err(error.clone()));
        }
    }
}
