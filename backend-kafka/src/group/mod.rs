//! The stored offsets of a group, read and moved by clients that are not its members.

mod checkpoints;
mod group_offsets;
pub(crate) mod initial_offsets;
pub(crate) mod note;
mod oldest;
pub(crate) mod reset;
mod start_offsets;

pub(crate) use checkpoints::Checkpoints;
