//! Events that a consumer in another process, Java's or ours, prints line by line to its standard output.

use std::time::{SystemTime, UNIX_EPOCH};

use millstream_core::Position;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimedEvent {
    /// When, in microseconds since 1970: all processes are on one machine.
    pub at: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// The worker has begun to look for leases.
    Started,
    /// A lease is the worker's.
    LeaseTaken {
        /// The shard.
        shard: String,
        /// Its checkpoint, which may be a word such as `TRIM_HORIZON`.
        seq: String,
        /// Its place in an aggregate.
        sub: u64,
    },
    /// A record is about to be handled.
    Record(Record),
    /// Progress is stored.
    Checkpointed {
        /// The shard.
        shard: String,
        /// The last handled record's number.
        seq: String,
        /// Its place in an aggregate.
        sub: u64,
    },
    /// Progress could not be stored.
    CheckpointRefused {
        /// The shard.
        shard: String,
        /// What the library said.
        why: String,
    },
    /// The worker has stored checkpoint in the middle of an aggregate, and does nothing any more.
    Dead {
        /// The shard.
        shard: String,
    },
    /// The worker learned that a lease is not its own any more.
    LeaseLost {
        /// The shard.
        shard: String,
    },
    /// A shard is read to its end, and that is stored.
    ShardEnded {
        /// The shard.
        shard: String,
    },
    /// The worker ends, and may store progress.
    ShutdownRequested {
        /// The shard.
        shard: String,
    },
    /// The library has let go of everything.
    ShutDown,
    /// The worker cannot continue.
    Failed {
        /// Its error.
        why: String,
    },
    /// The worker has ended cleanly.
    Stopped {
        /// Whether the library thinks so, too.
        good: bool,
    },
}

/// A record as a consumer has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The shard.
    pub shard: String,
    /// The number of the Kinesis record.
    pub seq: String,
    /// The place in an aggregate.
    pub sub: u64,
    /// The key.
    pub key: Option<String>,
    /// The payload, each byte as the character of its number.
    pub payload: String,
    /// Whether it came in an aggregate. Ours do not report it.
    #[serde(default)]
    pub aggregated: Option<bool>,
    /// The hash that its sender gave instead of the key's. Ours do not report it.
    #[serde(default)]
    pub explicit_hash_key: Option<String>,
    /// The epoch of its owner. Java's have none.
    #[serde(default)]
    pub epoch: Option<u64>,
}

impl Record {
    /// Its place in the shard.
    ///
    /// # Panics
    /// If the number is none.
    pub fn position(&self) -> Position {
        let position: Position = self.seq.parse().expect("a sequence number");
        position.with_sub_sequence(self.sub)
    }
}

impl TimedEvent {
    /// Something that happens now.
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
/// At a line that is none of these.
pub async fn listen(from: impl AsyncRead + Unpin, on_event: impl Fn(TimedEvent)) {
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await.expect("its output is text") {
        let reported = serde_json::from_str(&line);
        on_event(reported.unwrap_or_else(|error| panic!("{line:?} is no event: {error}")));
    }
}
