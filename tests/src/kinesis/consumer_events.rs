//! Events that a consumer in another process, Java's or millstream's, prints line by line to its standard output.

use std::time::{SystemTime, UNIX_EPOCH};

use millstream_core::Position;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// An event with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimedEvent {
    /// The time in microseconds since 1970: all processes run on one machine.
    pub at: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// An event of a consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// The worker has started to look for leases.
    Started,
    /// The worker has taken a lease.
    LeaseTaken {
        /// The shard.
        shard: String,
        /// Its checkpoint, which may be a word such as `TRIM_HORIZON`.
        seq: String,
        /// Its index in an aggregate.
        sub: u64,
    },
    /// A record is about to be handled.
    Record(Record),
    /// Progress is stored.
    Checkpointed {
        /// The shard.
        shard: String,
        /// The sequence number of the last record that was handled.
        seq: String,
        /// Its index in an aggregate.
        sub: u64,
    },
    /// Progress could not be stored.
    CheckpointRefused {
        /// The shard.
        shard: String,
        /// The library's message.
        why: String,
    },
    /// The worker has checkpointed in the middle of an aggregate, and stops handling.
    Dead {
        /// The shard.
        shard: String,
    },
    /// The worker has learned that it has lost a lease.
    LeaseLost {
        /// The shard.
        shard: String,
    },
    /// A shard was read to its end, and the shard end is checkpointed.
    ShardEnded {
        /// The shard.
        shard: String,
    },
    /// The worker is shutting down, and may checkpoint.
    ShutdownRequested {
        /// The shard.
        shard: String,
    },
    /// The library has released all its resources.
    ShutDown,
    /// The worker cannot continue.
    Failed {
        /// Its error.
        why: String,
    },
    /// The worker has ended cleanly.
    Stopped {
        /// Whether the library reports a clean end too.
        good: bool,
    },
}

/// A record as a consumer received it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The shard.
    pub shard: String,
    /// The sequence number of the Kinesis record.
    pub seq: String,
    /// The index in an aggregate.
    pub sub: u64,
    /// The key.
    pub key: Option<String>,
    /// The payload, with each byte as the character of that code.
    pub payload: String,
    /// Whether it came in an aggregate. Millstream members do not report it.
    #[serde(default)]
    pub aggregated: Option<bool>,
    /// The explicit hash key of the record. Millstream members do not report it.
    #[serde(default)]
    pub explicit_hash_key: Option<String>,
    /// The epoch of its owner. Java members have none.
    #[serde(default)]
    pub epoch: Option<u64>,
}

impl Record {
    /// Returns its position in the shard.
    ///
    /// # Panics
    /// If the sequence number is malformed.
    pub fn position(&self) -> Position {
        let position: Position = self.seq.parse().expect("a sequence number");
        position.with_sub_sequence(self.sub)
    }
}

impl TimedEvent {
    /// Returns an event that happens now.
    pub fn now(event: Event) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.expect("later than 1970").as_micros();
        let at = u64::try_from(since).expect("not for 584,000 years");
        Self { at, event }
    }
}

/// Passes events on until the output ends.
///
/// # Panics
/// If a line is not such an event.
pub async fn listen(from: impl AsyncRead + Unpin, on_event: impl Fn(TimedEvent)) {
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await.expect("its output is text") {
        let reported = serde_json::from_str(&line);
        on_event(reported.unwrap_or_else(|error| panic!("{line:?} is no event: {error}")));
    }
}
