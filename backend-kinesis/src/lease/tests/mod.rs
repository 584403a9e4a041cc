//! Members beside each other: the scenarios by which the KCL itself is tested, and ours.
//!
//! A name that begins with `s` and a number is one of the KCL's scenarios.

mod ending;
mod handover;
mod joining;
mod mixed;
mod owning;
mod quiet;
mod resetting;
mod storm;
mod taking;
mod tips;
mod trouble;
