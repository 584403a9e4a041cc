//! The actions that a state requests.

use millstream_core::Error;
use millstream_core::driver::Event;

use super::progress::Progress;
use super::question::Question;
use crate::consumer::types::{FetchPosition, TopicPartition};

/// The effects of one event, in the order in which they are to be carried out.
pub(crate) type Effects = Vec<Effect>;

/// An action that the owner of the client must carry out.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Pass an event to the runtime.
    Emit(Event),
    /// End the membership.
    Fail(Error),
    /// Acknowledge a rebalance event: the partitions are assigned, each from its offset. Offsets with a leader
    /// epoch are validated against their leaders' logs.
    Assign(Vec<FetchPosition>),
    /// Acknowledge a rebalance event: the partitions are given up.
    Unassign(Vec<TopicPartition>),
    /// Move fetching to these offsets. A refusal is ignored.
    Seek(Vec<FetchPosition>),
    /// Like `Seek`, but a refusal is reported as an event.
    SeekOrReassign(FetchPosition),
    /// Reassign a partition whose fetching has ended with an error. Impossible while a rebalance event waits: it
    /// would look like its acknowledgement. That is reported as an event.
    Reassign(FetchPosition),
    /// Pause fetching of the partitions in librdkafka.
    Pause(Vec<TopicPartition>),
    /// Resume fetching of the partition in librdkafka.
    Resume(TopicPartition),
    /// Keep the fetched records of a partition in librdkafka.
    HoldBack(TopicPartition),
    /// Forward the records of a partition to our queue.
    Forward(TopicPartition),
    /// Commit offsets. The result is an event.
    Commit(Vec<(TopicPartition, Progress)>),
    /// Ask the cluster. The result is an event.
    Ask(Question),
    /// Report only resets and new ids of these partitions from now on.
    Watch(Vec<TopicPartition>),
    /// Make the leaders fetch the partitions at once.
    WakeLeaders(Vec<TopicPartition>),
    /// Let the next rebalance begin without a pause.
    AllowRejoin,
    /// Send a heartbeat that is due. An event reports that it was sent.
    Heartbeat,
    /// Report the member's identity in its group, as an event.
    Identify,
    /// Abort the transaction that an earlier member of the same name left open.
    AbortEarlierTransaction,
}
