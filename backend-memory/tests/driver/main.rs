//! Drives the memory backend through the driver traits, as the runtime does.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may panic, as tests do"
)]

mod faults;
mod fixture;
mod groups;
mod lag;
mod limits;
mod members;
mod named;
mod persistence;
mod publish;
mod records;
mod reset;
mod reshard;
mod retention;
mod storm;
mod stream_ids;
