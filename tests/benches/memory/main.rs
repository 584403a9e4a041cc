//! Speed of the runtime on the memory backend, on one core: everything runs on one single-threaded
//! runtime.
//!
//! `tests/bench memory [FILTER]` runs it. All measurements take turns, round after round, so that a
//! slow moment of the machine affects all of them equally. The result is the median of the rounds,
//! with the quartiles in a comment. A ratio is the median of the ratios of each round.

mod channel;
mod load;
#[path = "../quartiles/mod.rs"]
mod quartiles;
mod report;

use std::error::Error;
use std::time::Duration;

use load::{Handler, Load};
use report::Report;

const ROUNDS: usize = 9;

type Measure = fn() -> Result<f64, Box<dyn Error>>;

const MEASURES: [(&str, &str, Measure); 24] = [
    ("mpsc_channel", "records/s", mpsc_channel),
    ("mpsc_channel_and_log", "records/s", mpsc_channel_and_log),
    ("memory_end_to_end", "records/s", end_to_end),
    ("memory_produce", "records/s", produce),
    ("memory_consume", "records/s", consume),
    ("memory_run", "ns/record", run),
    ("memory_pull", "ns/record", pull),
    ("memory_ticker_delay", "ms", ticker_delay),
    ("memory_yielding_handler", "records/s", yielding_handler),
    (
        "memory_sleeping_handler_vs_ideal",
        "ratio",
        sleeping_handler,
    ),
    ("memory_hot_key", "records/s", hot_key),
    ("memory_hot_key_yielding", "records/s", hot_key_yielding),
    ("memory_partitions_1", "ns/record", backlog::<1>),
    ("memory_partitions_8", "ns/record", backlog::<8>),
    ("memory_partitions_100", "ns/record", backlog::<100>),
    ("memory_partitions_10000", "ns/record", backlog::<10_000>),
    ("memory_8_busy_partitions_of_8", "ns/record", busy_of::<8>),
    (
        "memory_8_busy_partitions_of_10000",
        "ns/record",
        busy_of::<10_000>,
    ),
    ("memory_live_partitions_1", "ns/record", live::<1>),
    ("memory_live_partitions_100", "ns/record", live::<100>),
    ("memory_live_partitions_10000", "ns/record", live::<10_000>),
    ("memory_member_10000_partitions", "ms", member_of_many),
    ("memory_handover_1000_partitions", "ms", handover::<1_000>),
    ("memory_handover_10000_partitions", "ms", handover::<10_000>),
];

const RATIOS: [(&str, &str, &str); 8] = [
    (
        "memory_end_to_end_vs_mpsc",
        "memory_end_to_end",
        "mpsc_channel",
    ),
    (
        "memory_end_to_end_vs_mpsc_and_log",
        "memory_end_to_end",
        "mpsc_channel_and_log",
    ),
    ("memory_pull_vs_run", "memory_pull", "memory_run"),
    (
        "memory_partitions_10000_vs_8",
        "memory_partitions_10000",
        "memory_partitions_8",
    ),
    (
        "memory_partitions_10000_vs_1",
        "memory_partitions_10000",
        "memory_partitions_1",
    ),
    (
        "memory_8_busy_of_10000_vs_of_8",
        "memory_8_busy_partitions_of_10000",
        "memory_8_busy_partitions_of_8",
    ),
    (
        "memory_live_partitions_10000_vs_1",
        "memory_live_partitions_10000",
        "memory_live_partitions_1",
    ),
    (
        "memory_handover_10000_vs_1000",
        "memory_handover_10000_partitions",
        "memory_handover_1000_partitions",
    ),
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
    for (name, over, under) in RATIOS {
        report.ratio(name, over, under);
    }
    report.print();
    Ok(())
}

/// The load of which the others are variations.
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

/// The minimum that a broker adds to a channel: it keeps the sent records.
fn mpsc_channel_and_log() -> Result<f64, Box<dyn Error>> {
    Ok(per_second(BASE.records, channel::run_and_keep(&BASE)?))
}

/// Measures from the first `send` until the member has handled, checkpointed and left.
fn end_to_end() -> Result<f64, Box<dyn Error>> {
    Ok(per_second(BASE.records, BASE.run()?.closed))
}

/// Measures from the first `send` until the last receipt.
fn produce() -> Result<f64, Box<dyn Error>> {
    Ok(per_second(BASE.records, BASE.produce_only()?))
}

/// Measures from the join to a full stream until the member has handled, checkpointed and left.
fn consume() -> Result<f64, Box<dyn Error>> {
    Ok(per_second(BASE.records, BASE.consume_only()?.closed))
}

/// Measures a full stream with a handler, from the first handled record to the last.
fn run() -> Result<f64, Box<dyn Error>> {
    Ok(per_record(BASE.records, BASE.consume_only()?.settled))
}

/// Measures the same with a pull consumer.
fn pull() -> Result<f64, Box<dyn Error>> {
    Ok(per_record(BASE.records, BASE.pull_only()?))
}

/// Measures the maximum delay of a tick each millisecond, beside handlers that compute for 50 us.
fn ticker_delay() -> Result<f64, Box<dyn Error>> {
    let load = Load {
        handler: Handler::Computes,
        records: 10_000,
        ..BASE
    };
    Ok(load.ticker_delay()?.as_secs_f64() * 1e3)
}

/// The handler is pending once for each record.
fn yielding_handler() -> Result<f64, Box<dyn Error>> {
    settled(Load {
        handler: Handler::Yields,
        ..BASE
    })
}

/// The handler sleeps for 10 ms, so that 64 at once make 6,400 records/s at best.
fn sleeping_handler() -> Result<f64, Box<dyn Error>> {
    let load = Load {
        handler: Handler::Sleeps,
        records: 3_200,
        ..BASE
    };
    let ideal = load.concurrency as f64 / load::SLEEP.as_secs_f64();
    Ok(settled(load)? / ideal)
}

fn hot_key() -> Result<f64, Box<dyn Error>> {
    settled(Load { keys: 1, ..BASE })
}

/// One key is one record at a time, whatever the group's concurrency.
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

/// Enough keys for every partition of the largest measurement.
const MANY_KEYS: usize = 20_000;

fn per_record(records: usize, time: Duration) -> f64 {
    time.as_nanos() as f64 / records as f64
}

/// Measures the same records and keys, distributed over more and more partitions, and read by one member that joins
/// full partitions, from the first handled record to the last.
fn backlog<const PARTITIONS: usize>() -> Result<f64, Box<dyn Error>> {
    let load = Load {
        partitions: PARTITIONS,
        keys: MANY_KEYS,
        ..BASE
    };
    Ok(per_record(load.records, load.consume_only()?.settled))
}

/// Measures the same, produced and consumed concurrently. On 10,000 partitions every record is a separate batch.
fn live<const PARTITIONS: usize>() -> Result<f64, Box<dyn Error>> {
    let load = Load {
        partitions: PARTITIONS,
        keys: MANY_KEYS,
        ..BASE
    };
    Ok(per_record(load.records, load.run()?.settled))
}

/// Few partitions have records, the member owns many.
fn busy_of<const PARTITIONS: usize>() -> Result<f64, Box<dyn Error>> {
    let load = Load {
        partitions: PARTITIONS,
        keys: 8,
        ..BASE
    };
    Ok(per_record(load.records, load.run()?.settled))
}

/// Measures the cost of joining and leaving for a member of 10,000 partitions.
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

/// Measures the cost of moving half of the partitions to a member that joins.
fn handover<const PARTITIONS: usize>() -> Result<f64, Box<dyn Error>> {
    let load = Load {
        partitions: PARTITIONS,
        ..BASE
    };
    Ok(load.handover()?.as_secs_f64() * 1e3)
}
