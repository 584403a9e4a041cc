//! The memory backend, driven through the driver traits as the SDK's runtime would.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panic, as tests do"
)]

mod faults;
mod fixture;
mod groups;
mod members;
mod persistence;
mod publish;
mod records;
mod reset;
mod reshard;
mod retention;
mod storm;
