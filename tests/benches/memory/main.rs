//! Speed of the runtime on the memory backend, on one core: everything runs on one single-threaded runtime.
//!
//! `tests/bench memory [FILTER]` runs it. All measurements take turns, round after round, so that a slow moment of the machine
//! meets all of them alike; what is printed is the median of the rounds, with the quartiles in a comment. A ratio is the
//! median of the ratios of each round.

mod channel;
mod load;
mod report;

use std::error::Error;
use std::time::Duration;

use load::{Handler, Load, Times};
use report::Report;

const ROUNDS: usize = 9;

type Measure = fn() -> Result<f64, Box<dyn Error>>;

const MEASURES: [(&str, &str, Measure); 12] = [
    ("mpsc_channel", "records/s", mpsc_channel),
    ("memory_end_to_end", "records/s", end_to_end),
    ("memory_produce", "records/s", produce),
    ("memory_consume", "records/s", consume),
    ("memory_yielding_handler", "records/s", yielding_handler),
    ("memory_sleeping_handler", "records/s", sleeping_handler),
    ("memory_hot_key", "records/s", hot_key),
    ("memory_hot_key_yielding", "records/s", hot_key_yielding),
    ("memory_partitions_1", "ns/record", partitions::<1>),
    ("memory_partitions_100", "ns/record", partitions::<100>),
    ("memory_partitions_10000", "ns/record", partitions::<10_000>),
    ("memory_member_10000_partitions", "ms", member_of_many),
];

fn main() -> Result<(), Box<dyn Error>> {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let mut report = Report::default();
    for round in 0..=ROUNDS {
        for (name, unit, measure) in MEASURES {
            if filter
                .as_ref()
                .is_none_or(|filter| name.contains(filter.as_str()))
            {
                let value = measure()?;
                // The first round only warms up.
                if round > 0 {
                    report.add(name, unit, value);
                }
            }
        }
    }
    report.ratio(
        "memory_end_to_end_vs_mpsc",
        "memory_end_to_end",
        "mpsc_channel",
    );
    report.ratio(
        "memory_partitions_10000_vs_1",
        "memory_partitions_10000",
        "memory_partitions_1",
    );
    report.print();
    Ok(())
}

/// The load that the others vary.
const BASE: Load = Load {
    records: 400_000,
    partitions: 8,
    keys: 1_000,
    concurrency: 64,
    handler: Handler::Ready,
};

fn per_second(records: usize, time: Duration) -> f64 {
    records as f64 / time.as_secs_f64()
}

fn mpsc_channel() -> Result<f64, Box<dyn Error>> {
    Ok(per_second(BASE.records, channel::run(&BASE)?))
}

/// From the first `send` until the member has handled, checkpointed and left.
fn end_to_end() -> Result<f64, Box<dyn Error>> {
    Ok(per_second(BASE.records, BASE.run()?.closed))
}

/// From the first `send` until the last receipt.
fn produce() -> Result<f64, Box<dyn Error>> {
    Ok(per_second(BASE.records, BASE.produce_only()?))
}

/// From the join to a full stream until the member has handled, checkpointed and left.
fn consume() -> Result<f64, Box<dyn Error>> {
    Ok(per_second(BASE.records, BASE.consume_only()?))
}

/// The handler is pending once for each record.
fn yielding_handler() -> Result<f64, Box<dyn Error>> {
    settled(Load {
        handler: Handler::Yields,
        ..BASE
    })
}

/// The handler sleeps for a millisecond, of which 64 at once make 64,000 records/s at best.
fn sleeping_handler() -> Result<f64, Box<dyn Error>> {
    settled(Load {
        handler: Handler::Sleeps,
        records: 20_000,
        ..BASE
    })
}

fn hot_key() -> Result<f64, Box<dyn Error>> {
    settled(Load { keys: 1, ..BASE })
}

/// One key is one record at a time, however many the group may handle at once.
fn hot_key_yielding() -> Result<f64, Box<dyn Error>> {
    settled(Load {
        keys: 1,
        handler: Handler::Yields,
        ..BASE
    })
}

fn settled(load: Load) -> Result<f64, Box<dyn Error>> {
    Ok(per_second(load.records, load.run()?.settled))
}

/// The same records and keys on more and more partitions; joining and leaving are not counted.
fn many(partitions: usize) -> Result<Times, Box<dyn Error>> {
    Load {
        partitions,
        keys: 20_000,
        ..BASE
    }
    .run()
}

fn partitions<const N: usize>() -> Result<f64, Box<dyn Error>> {
    Ok(many(N)?.settled.as_nanos() as f64 / BASE.records as f64)
}

/// What joining and leaving cost a member of 10,000 partitions.
fn member_of_many() -> Result<f64, Box<dyn Error>> {
    let times = Load {
        records: 1,
        keys: 1,
        partitions: 10_000,
        ..BASE
    }
    .run()?;
    Ok((times.joined + times.closed - times.settled).as_secs_f64() * 1e3)
}
