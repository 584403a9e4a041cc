//! What a group has stored, asked for and moved by whoever is no member of it.

mod checkpoints;
mod group_offsets;
pub(crate) mod initial_offsets;
pub(crate) mod note;
mod oldest;
pub(crate) mod reset;
mod start_offsets;

pub(crate) use checkpoints::Checkpoints;
