//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Streams vehicle telemetry through producers, pipelines and groups, and verifies at the end that nothing
/// was lost or out of order.
///
/// car-raw-events -> cleaner -> processed-events -> entities      -> entity-updates
///                                               -> notifications -> notifications
///
/// The groups analytics, dashboard, inbox and dead-letters also read, each at its own speed.
///
/// Ends with a summary from its own history. Exit code 0: nothing lost, altered or out of order, and
/// no duplicate where no member crashed; 1: not so, or the run failed; 2: wrong usage. SIGTERM or
/// Ctrl-C stops sending, drains and verifies; a second signal aborts.
#[derive(Debug, Clone, Parser)]
#[command(name = "fleet", version, verbatim_doc_comment)]
pub(crate) struct Args {
    /// JSON lines to stream, gzipped or not; `-` is standard input. Default: the sample that ships
    /// with the program, 20,000 positions
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,

    /// The field that holds the key: text or a number. A line without it is a bad line
    #[arg(long, value_name = "FIELD", default_value = "vehicleId")]
    pub(crate) key: String,

    /// Settings in TOML: `backend = "memory"` and the backend's own keys. Environment variables
    /// override them: MILLSTREAM_BACKEND=memory, and so on
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Records sent in a second; 0 is as fast as the groups follow. Default: 5000 for the sample, 0
    /// for other input
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<u32>,

    /// How often the input is sent; each time is a day later for the alert rules. Not for standard
    /// input
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeat: u32,

    /// Members of each group at the beginning
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) members: u32,

    /// Lets members join, leave and crash while the records are sent
    #[arg(long)]
    pub(crate) chaos: bool,

    /// Splits a partition of the first two streams after 4,000 records, and merges its halves after
    /// 10,000. Not on Kafka, which cannot
    #[arg(long)]
    pub(crate) reshard: bool,

    /// Deletes the first stream after 8,000 records, when all of them are settled, and creates it again.
    /// Not on Kinesis, where a group refuses another stream of the same name
    #[arg(long, conflicts_with = "reshard")]
    pub(crate) recreate: bool,

    /// Makes every N-th record of a vehicle a tombstone: an additional record without a payload, which
    /// takes the vehicle off the dashboard until its next report
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) tombstones: Option<u32>,

    /// Decides what chaos does, and in which order
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Prints the summary as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

impl Args {
    /// Returns the limit of records per second, if there is one.
    pub(crate) fn rate(&self) -> Option<u32> {
        let rate = match self.input {
            None => self.rate.unwrap_or(5_000),
            Some(_) => self.rate.unwrap_or(0),
        };
        (rate > 0).then_some(rate)
    }
}
