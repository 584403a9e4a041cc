//! The script of a seed: a fleet, its load and its disruptions.

use std::time::Duration;

use millstream_core::{ErrorKind, OnDataLoss, Start};
use millstream_memory::Imitation;

/// A run, drawn from a seed. Its `Debug` form is the script for the reader.
#[derive(Debug, Clone)]
pub struct Script {
    pub(super) seed: u64,
    pub(super) session_timeout: Duration,
    pub(super) records_per_second: Option<u64>,
    /// The maximum record size of streams.
    pub(super) record_bytes: Option<usize>,
    /// The broker whose limits are imitated.
    pub(super) like: Option<Imitation>,
    /// The number of bytes that a partition retains.
    pub(super) retention: Option<u64>,
    pub(super) streams: Vec<StreamPlan>,
    pub(super) producers: Vec<ProducerPlan>,
    pub(super) groups: Vec<GroupPlan>,
    /// Whether the broker is stopped half-way and reopened from its folder, and, if so, whether its
    /// members are killed first, or leave cleanly.
    pub(super) restart: Option<bool>,
    /// The disruptions in order, with their times since the start.
    pub(super) disruptions: Vec<(Duration, Disruption)>,
}

#[derive(Debug, Clone)]
pub(super) struct StreamPlan {
    pub(super) name: String,
    pub(super) partitions: usize,
}

/// One producer, with keys that no other producer uses.
#[derive(Debug, Clone)]
pub(super) struct ProducerPlan {
    pub(super) stream: String,
    pub(super) records: u64,
    pub(super) keys: usize,
    /// Whether the first keys get most of the records.
    pub(super) skewed: bool,
    /// The share of records without a key.
    pub(super) keyless: f64,
    /// The share of tombstones.
    pub(super) tombstones: f64,
    /// The share of records with unusual headers, sizes and timestamps.
    pub(super) odd: f64,
    /// The maximum number of records in a burst.
    pub(super) burst: u64,
    /// The mean time between two bursts.
    pub(super) gap: Duration,
    pub(super) in_flight: usize,
    pub(super) in_flight_bytes: usize,
    pub(super) timeout: Duration,
    pub(super) close_timeout: Duration,
    /// The time after which a waiting `send` is dropped.
    pub(super) send_timeout: Option<Duration>,
    /// The share of receipts that are dropped unread.
    pub(super) unread: f64,
    /// The share of bursts after which it flushes.
    pub(super) flushing: f64,
    /// The number of producers that it opens, one after the other.
    pub(super) runs: u64,
    pub(super) ending: Ending,
}

/// The end of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Closed when all receipts that are read have resolved.
    Close,
    /// Closed while records are in flight.
    CloseInFlight,
    /// Dropped while records are in flight.
    Drop,
}

#[derive(Debug, Clone)]
pub(super) struct GroupPlan {
    pub(super) name: String,
    pub(super) streams: Vec<String>,
    pub(super) start: Start,
    /// When the first members join.
    pub(super) begins: Duration,
    pub(super) members: usize,
    pub(super) style: Style,
    pub(super) concurrency: usize,
    pub(super) window: usize,
    pub(super) buffer_bytes: usize,
    pub(super) fetch: usize,
    pub(super) checkpoint_interval: Duration,
    pub(super) checkpoint_records: u64,
    pub(super) drain: Duration,
    pub(super) attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) final_action: FinalAction,
    pub(super) on_data_loss: OnDataLoss,
    pub(super) handler: HandlerPlan,
    /// The interval at which the stored checkpoint is read for the history.
    pub(super) watch: Duration,
}

/// The style of consumption of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Style {
    Each,
    Batches(usize),
    /// Pulls, and holds up to this many deliveries at once.
    Pull(usize),
    /// Publishes a result for each record.
    Pipeline {
        to: String,
        /// Whether each result is stored once: the producer belongs to the group's client.
        once: bool,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Backoff {
    Fixed(Duration),
    Exponential(Duration, Duration),
}

/// The final action when the attempts have run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FinalAction {
    DeadLetter,
    Skip,
    Stop,
}

/// The behavior of handlers. Its effect on a record depends on the record alone.
#[derive(Debug, Clone)]
pub(super) struct HandlerPlan {
    /// The share of records whose handler is not ready at once.
    pub(super) pausing: f64,
    /// The maximum duration of those handlers.
    pub(super) pause: Duration,
    /// The share of records whose handler takes longer than a session timeout.
    pub(super) stuck: f64,
    /// The number of keys that are stuck once, and for how long.
    pub(super) stuck_keys: usize,
    pub(super) key_stuck_for: Duration,
    /// The share of records that fail at first, and the maximum number of failures.
    pub(super) failing: f64,
    pub(super) failures: u32,
    /// The share of failures that are panics.
    pub(super) panicking: f64,
    /// The share of the other failures that are classified for the next attempt.
    pub(super) classified: f64,
    /// The share of records that always fail.
    pub(super) poison: f64,
    /// The share of results that the broker rejects, in an exactly-once pipeline. It rejects each once
    /// if the consumer stops at it, and always otherwise.
    pub(super) refused: f64,
}

/// A disruption of the fleet. `pick` selects a target at the time of the disruption.
#[derive(Debug, Clone)]
pub(super) enum Disruption {
    /// A member leaves cleanly, and another one joins: before the first has left, or after.
    Replace {
        group: usize,
        pick: usize,
        overlap: bool,
    },
    /// Another member joins.
    Join {
        group: usize,
    },
    /// A member leaves, but never the last one.
    Leave {
        group: usize,
        pick: usize,
    },
    /// A member is killed; another one joins after a while.
    Crash {
        group: usize,
        pick: usize,
        back_after: Duration,
    },
    /// The broker evicts a member at once.
    Disconnect {
        group: usize,
        pick: usize,
    },
    /// A member sends and receives nothing for a while, but its handlers continue.
    Freeze {
        group: usize,
        pick: usize,
        lasts: Duration,
    },
    /// A partition moves to another member without a drain.
    Steal {
        group: usize,
        pick: usize,
    },
    /// A member pauses one of its partitions, or all, for a while.
    Pause {
        group: usize,
        pick: usize,
        partition: bool,
        lasts: Duration,
    },
    FailSends {
        sends: u64,
        kind: ErrorKind,
    },
    FailFor {
        lasts: Duration,
        kind: ErrorKind,
    },
    DelaySends {
        sends: u64,
        delay: Duration,
    },
    /// Stored, but `send` returns `Timeout`.
    TimeOutSends {
        sends: u64,
    },
    /// Fails with `Unavailable`, and may be stored or not.
    LoseCheckpoints {
        checkpoints: u64,
        stored: bool,
    },
    Split {
        stream: usize,
        pick: usize,
    },
    Merge {
        stream: usize,
        pick: usize,
        other: usize,
    },
    AddPartitions {
        stream: usize,
        more: usize,
    },
    /// A stream is deleted with all its records, and recreated after a while.
    Recreate {
        stream: usize,
        partitions: usize,
        absent: Duration,
        /// Whether the groups that read it have left before.
        stopped: bool,
    },
    Reset {
        group: usize,
        pick: usize,
        to: ResetTo,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum ResetTo {
    Earliest,
    Latest,
    /// This long before the moment of the reset.
    Ago(Duration),
}

impl Script {
    /// Returns whether sends may fail.
    pub(super) fn has_send_faults(&self) -> bool {
        let by = |(_, disruption): &(Duration, Disruption)| {
            use Disruption::*;
            matches!(
                disruption,
                FailSends { .. } | FailFor { .. } | DelaySends { .. } | TimeOutSends { .. }
            )
        };
        self.records_per_second.is_some() || self.disruptions.iter().any(by)
    }
}

impl GroupPlan {
    /// Returns the dead letter stream of the group.
    pub(super) fn dead_letters(&self) -> String {
        format!("{DEAD_LETTERS}{}", self.name)
    }

    /// Returns whether drains are always long enough, so that nothing is delivered again after a
    /// clean handover.
    pub(super) fn drains_fully(&self) -> bool {
        // A member that stops at a gap leaves everything else as it is.
        self.drain >= LONG_DRAIN && self.on_data_loss == OnDataLoss::Skip
    }
}

/// Longer than anything that handlers do.
pub(super) const LONG_DRAIN: Duration = Duration::from_secs(4 * 60 * 60);
/// Longer than it takes to settle everything.
pub(super) const LONG_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// The prefix of dead letter streams.
pub(super) const DEAD_LETTERS: &str = "dead-of-";
/// The output stream of pipelines.
pub(super) const PIPELINE_OUTPUT: &str = "chained";
