//! The ids of topics (KIP-516), for which rdkafka has no API.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::slice;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::admin::{Event, Options, Queue};
use super::code::{self, NO_ERROR};

/// The id of a topic. Another topic of the same name has another id. Never zero: zero is what brokers without
/// ids report.
///
/// Displayed as by Kafka's own tools: base64 for URLs, without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopicId(u128);

/// The ids that the broker has reported, by topic. `None` for a topic without an id, and the error where the
/// topic was refused.
pub(crate) type TopicIds = HashMap<Arc<str>, Result<Option<TopicId>, RDKafkaErrorCode>>;

/// Requests the ids of topics, and waits. Blocks for `timeout` or somewhat longer.
pub(crate) fn read<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<TopicIds, KafkaError> {
    let queue = Queue::new(client);
    request(client, topics, &Options::new(client, timeout)?, &queue)?;
    response(&queue.wait(timeout)?)
}

/// Requests the ids of topics, which are distinct and have names.
pub(super) fn request<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    options: &Options,
    queue: &Queue,
) -> Result<(), KafkaError> {
    let names: Vec<CString> = topics
        .iter()
        .map(|topic| CString::new(*topic))
        .collect::<Result<_, _>>()?;
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the names are terminated and live through the call, which copies them. Client, options
    // and queue live through the request, which copies the collection. The collection is then
    // destroyed, once.
    unsafe {
        let collection =
            sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        sys::rd_kafka_DescribeTopics(
            client.native_ptr(),
            collection,
            options.as_ptr(),
            queue.as_ptr(),
        );
        sys::rd_kafka_TopicCollection_destroy(collection);
    }
    Ok(())
}

/// Reads the response to a [`request`].
pub(super) fn response(event: &Event) -> Result<TopicIds, KafkaError> {
    let mut count = 0;
    // SAFETY: the event lives to the end of this function. If it is not of the requested kind, the first
    // call returns null, and the second is not made.
    let topics = unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event.as_ptr());
        if result.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::Fail));
        }
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        match count {
            0 => &[],
            _ => slice::from_raw_parts(topics, count),
        }
    };
    let mut ids = TopicIds::new();
    // Null where the broker has left out a topic.
    for topic in topics.iter().filter(|topic| !topic.is_null()) {
        // SAFETY: the description lives as long as the event, and so do its name, which is
        // terminated, its id, and its error. The error may be null; its code is then that of no error.
        let (name, code, id) = unsafe {
            let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(*topic));
            let error = sys::rd_kafka_TopicDescription_error(*topic);
            let id = sys::rd_kafka_TopicDescription_topic_id(*topic);
            let high = sys::rd_kafka_Uuid_most_significant_bits(id);
            let low = sys::rd_kafka_Uuid_least_significant_bits(id);
            (name, code::of_error(error), (high, low))
        };
        let id = match code {
            NO_ERROR => Ok(TopicId::new(id)),
            code => Err(code::named(code)),
        };
        ids.insert(name.to_string_lossy().into(), id);
    }
    Ok(ids)
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// 22 digits of 6 bits hold 128 bits, and 4 bits that are zero.
const LENGTH: usize = 22;

impl TopicId {
    /// Returns `None` for the zero id of brokers that have no ids.
    fn new((high, low): (i64, i64)) -> Option<Self> {
        let id = (u128::from(high as u64) << 64) | u128::from(low as u64);
        (id != 0).then_some(Self(id))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |place: usize| match place {
            21 => self.0 << 4,
            _ => self.0 >> (122 - 6 * place),
        };
        let mut digits = (0..LENGTH).map(|place| DIGITS[(digit(place) & 63) as usize]);
        digits.try_for_each(|digit| write!(f, "{}", char::from(digit)))
    }
}

/// The text is not the id of a topic.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoTopicId;

impl FromStr for TopicId {
    type Err = NoTopicId;

    fn from_str(text: &str) -> Result<Self, NoTopicId> {
        if text.len() != LENGTH {
            return Err(NoTopicId);
        }
        let value = |digit: u8| DIGITS.iter().position(|known| *known == digit);
        let mut id = 0;
        for (place, digit) in text.bytes().enumerate() {
            let value = value(digit).ok_or(NoTopicId)? as u128;
            id = match place {
                21 if value & 15 != 0 => return Err(NoTopicId),
                21 => (id << 2) | (value >> 4),
                _ => (id << 6) | value,
            };
        }
        match id {
            0 => Err(NoTopicId),
            id => Ok(Self(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;
    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::mocking::MockCluster;

    use super::*;

    fn client(brokers: &str) -> BaseConsumer {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", brokers);
        settings.set("group.id", "g").create().unwrap()
    }

    /// Requests go to the controller, and a mock cluster has none. The suite tests the responses.
    #[test]
    fn an_unanswered_request_ends() {
        let cluster = MockCluster::new(1).unwrap();
        let client = client(&cluster.bootstrap_servers());
        cluster.broker_down(1).unwrap();
        assert!(read(client.client(), &["a"], Duration::from_millis(200)).is_err());
    }

    proptest! {
        #[test]
        fn ids_are_those_of_kafkas_tools(high: i64, low in 1i64..) {
            let id = TopicId::new((high, low)).unwrap();
            let bytes = [high.to_be_bytes(), low.to_be_bytes()].concat();
            prop_assert_eq!(id.to_string(), URL_SAFE_NO_PAD.encode(bytes));
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn other_texts_are_no_ids(text in "[A-Za-z0-9_=-]{20,24}") {
            let id = TopicId::from_str(&text);
            prop_assert!(id.is_err() || id.unwrap().to_string() == text);
        }
    }

    #[test]
    fn the_zero_id_is_none() {
        assert_eq!(TopicId::new((0, 0)), None);
        assert_eq!("A".repeat(LENGTH).parse::<TopicId>(), Err(NoTopicId));
    }
}
