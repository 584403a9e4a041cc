//! What librdkafka calls back, written down and answered later.
//!
//! Nothing is decided in a callback: a drain takes as long as handlers take, and a callback that
//! waits holds up the client. The polling thread reads what was written down when the poll returns.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

use crate::connection::context::Context;
use crate::connection::statistics::Bounds;
use crate::native::consume::{Identity, identity};

/// A partition by topic and number.
pub(super) type Name = (Arc<str>, i32);

/// Something that librdkafka told.
pub(super) enum Happening {
    /// These partitions are the member's, to be assigned.
    Assign {
        partitions: Vec<Name>,
        identity: Option<Identity>,
    },
    /// These partitions are to be unassigned.
    Revoke {
        partitions: Vec<Name>,
        identity: Option<Identity>,
        /// Others may have them already.
        lost: bool,
    },
    /// A commit was answered.
    Committed(Vec<(Name, Option<RDKafkaErrorCode>)>),
    /// A commit failed as a whole.
    NotCommitted(RDKafkaErrorCode),
    /// A topic may be gone.
    Missing,
    /// Where partitions begin and end, owned or not.
    Bounds(Vec<(Name, Bounds)>),
}

pub(super) struct MemberContext {
    pub(super) base: Context,
    happened: Mutex<Vec<Happening>>,
    /// Whether the client is about to be dropped, and nobody is left to answer a rebalance.
    closing: AtomicBool,
}

impl MemberContext {
    pub(super) fn new(base: Context) -> Self {
        Self {
            base,
            happened: Mutex::default(),
            closing: AtomicBool::new(false),
        }
    }

    pub(super) fn happened(&self) -> Vec<Happening> {
        std::mem::take(&mut *self.happened.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on rebalances are answered on the spot.
    pub(super) fn close(&self) {
        self.closing.store(true, Relaxed);
    }

    fn note(&self, happening: Happening) {
        let happened = self.happened.lock();
        happened
            .unwrap_or_else(PoisonError::into_inner)
            .push(happening);
    }
}

impl ClientContext for MemberContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = Context::ENABLE_REFRESH_OAUTH_TOKEN;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.base.log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if let Some(statistics) = self.base.heed(statistics) {
            self.note(Happening::Bounds(statistics.bounds().collect()));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicId,
        ) = error.rdkafka_error_code()
        {
            self.note(Happening::Missing);
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

impl ConsumerContext for MemberContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let assign = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Relaxed) {
            // A refusal means that the client has gone further already.
            let _ = match assign {
                true => consumer.incremental_assign(list),
                false => consumer.incremental_unassign(list),
            };
            return;
        }
        // The list is copied, not kept: a kept one holds references to its partitions, for which
        // the client's end would wait for ever.
        let partitions = names(list);
        self.note(match assign {
            true => Happening::Assign {
                partitions,
                identity: identity(consumer),
            },
            false => Happening::Revoke {
                partitions,
                identity: identity(consumer),
                lost: consumer.assignment_lost(),
            },
        });
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let each = || {
            let elements = offsets.elements();
            let each = elements.iter().map(|element| {
                let name = (Arc::from(element.topic()), element.partition());
                let code = element.error().err().and_then(|e| e.rdkafka_error_code());
                (name, code)
            });
            each.collect::<Vec<_>>()
        };
        let failed = result.err().and_then(|error| error.rdkafka_error_code());
        self.note(match failed {
            // Where single partitions have errors, librdkafka repeats one of them for the whole.
            Some(code) if each().iter().all(|(_, code)| code.is_none()) => {
                Happening::NotCommitted(code)
            }
            _ => Happening::Committed(each()),
        });
    }
}

fn names(list: &TopicPartitionList) -> Vec<Name> {
    let elements = list.elements();
    let names = elements
        .iter()
        .map(|element| (Arc::from(element.topic()), element.partition()));
    names.collect()
}

/// A list for librdkafka.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a Name>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in names {
        list.add_partition(topic, *partition);
    }
    list
}
