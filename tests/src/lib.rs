//! What every backend of millstream must prove, and the judge of what it did.
//!
//! [`history`] records what happened in a run, [`checker`] finds what must not have happened.

pub mod checker;
pub mod history;
#[cfg(feature = "simulation")]
pub mod simulation;

/// The repository's readme: its program is a doc test, so that it keeps running.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
