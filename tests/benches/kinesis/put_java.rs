//! The Kinesis Producer Library itself, which is a Java library and a native program that sends the records, in a
//! container. Java runs with its default options except for the heap, and the library with its defaults, but without
//! metrics and limited to the rate of a shard. By default it sends up to one and a half times as much, in order
//! to fill a shard. On this emulator that stores no more of it, and more is rejected.
//!
//! It counts from a later time than millstream's: until the library has learnt the shards it aggregates nothing, and
//! Java compiles its hot code, both of which are long over in a producer that runs for days.

use std::time::Duration;

use conformance::kinesis::java::{self, Load};

use crate::Result;
use crate::environment::{self, RECEIPTS};
use crate::job::{Measured, Target};
use crate::keys::{BYTES, keys};
use crate::put::COUNTED;

/// The percentage of a shard's limit.
const RATE: u32 = 100;

/// The time until it aggregates.
const UNCOUNTED: Duration = Duration::from_secs(10);

pub(crate) fn run(target: &Target) -> Result<Measured> {
    let load = Load {
        bytes: BYTES,
        outstanding: RECEIPTS,
        rate: RATE,
        uncounted: UNCOUNTED,
        counted: COUNTED,
    };
    let keys = keys();
    let loaded = java::load(&target.kinesis, &target.stream, &keys, load);
    let loaded = environment::runtime()?.block_on(loaded);
    let records = loaded.records as f64;
    Ok([
        ("rate".into(), records * 1e9 / loaded.nanos as f64),
        ("cpu".into(), loaded.processor as f64 / records),
    ]
    .into())
}
