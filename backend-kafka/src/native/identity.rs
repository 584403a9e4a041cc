//! Who a consumer is in its group.

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

use super::c_data::text;

/// The identity of a consumer in its group, as last reported by the broker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) generation: i32,
    pub(crate) member: String,
}

impl Identity {
    /// Returns whether it is a member: a consumer that left or was fenced has no id or no generation.
    pub(crate) fn is_member(&self) -> bool {
        self.generation > 0 && !self.member.is_empty()
    }
}

/// Reads the identity of a consumer in its group from librdkafka. Must be called in the callback of an
/// assignment: later the values may be those of the next assignment, or none.
pub(crate) fn identity<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<Identity> {
    // SAFETY: the client lives. The last call destroys what the first call makes. The member's id, which
    // belongs to it, is copied before.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return None;
        }
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata);
        let member = sys::rd_kafka_consumer_group_metadata_member_id(metadata);
        let member = text(member).into_owned();
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        Some(Identity { generation, member })
    }
}
