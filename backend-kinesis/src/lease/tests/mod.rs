//! Several members on one table: the test scenarios of the KCL, and additional ones.
//!
//! A name that begins with `s` and a number is a scenario of the KCL.

mod ending;
mod handover;
mod joining;
mod mixed;
mod moving;
mod notifying;
mod owning;
mod quiet;
mod resetting;
mod rush;
mod several_streams;
mod storm;
mod taking;
mod tips;
mod trouble;
mod unordered;
