//! A member that joins, until the group has let it in and all is stored that it must store as a member.

use std::time::Instant;

use millstream_core::{Error, Result};
use tokio::sync::oneshot;

use super::initial_offsets::{InitialOffsets, Next};
use super::question::Question;
use crate::config::Protocol;
use crate::native::consume::Identity;

/// The wait of whoever joins.
#[derive(Debug)]
pub(crate) struct Joining {
    protocol: Protocol,
    pub(crate) initial_offsets: InitialOffsets,
    /// Receives the id of the member. `None` once it is sent.
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

    /// Whether the member still joins.
    pub(crate) fn is_waiting(&self) -> bool {
        self.joined.is_some()
    }

    /// Whether the member still joins, and the group may have let it in. `generation` is the one that it
    /// was last assigned in.
    pub(crate) fn may_be_let_in(&self, generation: i32) -> bool {
        let may_be = match self.protocol {
            // Each rebalance ends with an assignment, if only of nothing.
            Protocol::Cooperative => generation > 0,
            // Nothing may be assigned, and no event reports that.
            Protocol::Consumer => true,
        };
        self.joined.is_some() && may_be
    }

    /// Takes in who the member is in its group. Returns what is to be asked next.
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
                    // Who joins may have given up, and then leaves.
                    let _ = joined.send(Ok(identity.member));
                }
                None
            }
        }
    }

    /// Ends the wait with an error.
    pub(crate) fn fail(&mut self, error: &Error) {
        if let Some(joined) = self.joined.take() {
            // Who joins may have given up, and then leaves.
            let _ = joined.send(Err(error.clone()));
        }
    }
}
