//! The calls of the handle of a member.

use millstream_core::{Epoch, Error, ErrorKind, Position, Result};
use tokio::sync::oneshot;

use super::key::LeaseKey;
use super::row::Tip;
use crate::stream::Shard;

/// The sender of the result of a call.
pub(super) type Reply = oneshot::Sender<Result<()>>;

/// A call of the handle.
#[derive(Debug)]
pub(super) enum Command {
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

/// Resolves a call.
pub(super) fn respond(reply: Reply, result: Result<()>) {
    // The caller may have dropped the call.
    let _ = reply.send(result);
}

/// Returns the error of a call after the membership has ended.
pub(super) fn closed(operation: &'static str) -> Error {
    Error::new(
        ErrorKind::Closed,
        operation,
        "the member has left, or has failed",
    )
}
