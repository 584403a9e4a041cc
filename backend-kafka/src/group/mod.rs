//! What a group has stored, asked for and moved by whoever is no member of it.

pub(crate) mod birth;
mod checkpoints;
pub(crate) mod note;
mod oldest;
mod places;
pub(crate) mod progress;
pub(crate) mod reset;

pub(crate) use checkpoints::Checkpoints;
