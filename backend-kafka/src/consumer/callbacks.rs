//! The callbacks of a member's client. Their reports are kept, and handled later.
//!
//! No decision is made in a callback: a drain takes as long as handlers take, and a callback that waits blocks the
//! client. The polling thread reads the reports when the poll returns.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

use super::lists::names;
use super::state::{CommitResult, RebalanceEvent};
use super::types::TopicPartition;
use crate::connection::context::Context;
use crate::connection::statistics::Bounds;
use crate::native::identity::identity;

/// A report of librdkafka.
pub(super) enum CallbackEvent {
    /// Partitions are assigned or revoked.
    Rebalance {
        event: RebalanceEvent,
        /// The member's current generation.
        generation: Option<i32>,
    },
    /// The response to a commit.
    Committed(CommitResult),
    /// A topic may be gone.
    TopicMissing,
    /// The state of partitions, owned or not.
    Statistics {
        /// The begin and end offsets.
        bounds: Vec<(TopicPartition, Bounds)>,
        /// The leaders, if any.
        leaders: HashMap<TopicPartition, Option<i32>>,
    },
}

/// The callbacks of a member's client.
pub(super) struct ConsumerCallbacks {
    pub(super) base: Context,
    events: Mutex<Vec<CallbackEvent>>,
    /// Whether the client is about to be dropped, and no one is left to acknowledge a rebalance.
    closing: AtomicBool,
}

impl ConsumerCallbacks {
    pub(super) fn new(base: Context) -> Self {
        Self {
            base,
            events: Mutex::default(),
            closing: AtomicBool::new(false),
        }
    }

    /// Returns the reports since the last call, in order.
    pub(super) fn take_events(&self) -> Vec<CallbackEvent> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Acknowledges rebalances immediately in the callback from now on.
    pub(super) fn close(&self) {
        self.closing.store(true, Relaxed);
    }

    fn push(&self, event: CallbackEvent) {
        let events = self.events.lock();
        events.unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

impl ClientContext for ConsumerCallbacks {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = Context::ENABLE_REFRESH_OAUTH_TOKEN;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.base.log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if let Some(statistics) = self.base.on_statistics(statistics) {
            self.push(CallbackEvent::Statistics {
                bounds: statistics.bounds().collect(),
                leaders: statistics.leaders().collect(),
            });
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicId,
        ) = error.rdkafka_error_code()
        {
            self.push(CallbackEvent::TopicMissing);
        }
        self.base.error(error, reason);
    }

    fn generate_oauth_token(
        &self,
        config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.base.generate_oauth_token(config)
    }
}

impl ConsumerContext for ConsumerCallbacks {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let assign = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Relaxed) {
            // An error means that the client has already moved past this event.
            let _ = match assign {
                true => consumer.incremental_assign(list),
                false => consumer.incremental_unassign(list),
            };
            return;
        }
        // The list is copied, not kept: a kept list holds references to its partitions, and destroying the
        // client would wait for them forever.
        let partitions = names(list);
        let event = match assign {
            true => RebalanceEvent::Assign(partitions),
            false => RebalanceEvent::Revoke {
                partitions,
                is_lost: consumer.assignment_lost(),
            },
        };
        let generation = identity(consumer).map(|identity| identity.generation);
        self.push(CallbackEvent::Rebalance { event, generation });
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let elements = offsets.elements();
        let each = elements.iter().map(|element| {
            let name = (Arc::from(element.topic()), element.partition());
            let code = element.error().err().and_then(|e| e.rdkafka_error_code());
            (name, code)
        });
        let each: HashMap<_, _> = each.collect();
        let failed = result.err().and_then(|error| error.rdkafka_error_code());
        self.push(CallbackEvent::Committed(match failed {
            // If single partitions have errors, librdkafka repeats one of them as the error of the whole commit.
            Some(code) if each.values().all(Option::is_none) => CommitResult::Failed(code),
            _ => CommitResult::Each(each),
        }));
    }
}
