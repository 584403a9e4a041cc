//! What a state wants done.

use millstream_core::Error;
use millstream_core::driver::Event;

use super::progress::Progress;
use super::question::Question;
use crate::consumer::types::{FetchPosition, TopicPartition};

/// The effects of one event, in the order in which they are to be carried out.
pub(crate) type Effects = Vec<Effect>;

/// Something that the owner of the client has to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Pass an event to the runtime.
    Emit(Event),
    /// End the membership.
    Fail(Error),
    /// Answer a rebalance event: the partitions are taken, each from its offset. Those with a leader
    /// epoch are compared with their leaders' logs.
    Assign(Vec<FetchPosition>),
    /// Answer a rebalance event: the partitions are given up.
    Unassign(Vec<TopicPartition>),
    /// Move fetching to these offsets. Refusals do no harm.
    Seek(Vec<FetchPosition>),
    /// As `Seek`. A refusal is an event.
    SeekOrReassign(FetchPosition),
    /// Assign a partition anew, whose fetching has ended with an error. Impossible while a rebalance
    /// event waits, whose answer it would look like; that is an event.
    Reassign(FetchPosition),
    /// Let librdkafka fetch nothing of the partitions.
    Pause(Vec<TopicPartition>),
    /// Let librdkafka fetch them again.
    Resume(TopicPartition),
    /// Keep the fetched records of a partition in librdkafka.
    HoldBack(TopicPartition),
    /// Let the records of a partition come.
    Forward(TopicPartition),
    /// Commit offsets. The result is an event.
    Commit(Vec<(TopicPartition, Progress)>),
    /// Ask the cluster. The answer is an event.
    Ask(Question),
    /// From now on, report resets and new ids of these partitions alone.
    Watch(Vec<TopicPartition>),
    /// Have the partitions fetched at once.
    WakeLeaders(Vec<TopicPartition>),
    /// Let the next rebalance begin without a pause.
    AllowRejoin,
    /// Have a heartbeat sent that is due. That it was sent is an event.
    Heartbeat,
    /// Report who the member is in its group, as an event.
    Identify,
    /// Abort the transaction that an earlier member of the same name has left open.
    AbortEarlierTransaction,
}
