//! The Kinesis Producer Library itself, which is a library of Java and a program that it sends by, in a
//! container: Java at its own options but for the heap, and the library at its defaults, but without
//! metrics and kept to what a shard takes. By default it sends up to one and a half times as much, so
//! as to fill a shard, and stores no more of it on this emulator, while more is refused.
//!
//! It counts from later than ours: until the library has learnt the shards it aggregates nothing, and
//! Java compiles what it runs often, which a producer that lives for days has behind it.

use std::time::Duration;

use conformance::kinesis::java::{self, Load};

use crate::Result;
use crate::environment::{self, RECEIPTS};
use crate::job::{Measured, Target};
use crate::keys::{BYTES, keys};
use crate::put::COUNTED;

/// Per cent of what a shard takes.
const RATE: u32 = 100;

/// From when it aggregates.
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
