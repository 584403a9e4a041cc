//! Rewrites responses of the broker.

use std::io;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{BrokerId, FetchResponse, MetadataResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

use crate::kafka::frame;

const NOBODY: BrokerId = BrokerId(-1);

/// Returns the metadata of a broker outside its cluster.
pub(super) fn without_brokers(response: &Bytes, version: i16) -> io::Result<Bytes> {
    rewrite(response, version, |decoded: &mut MetadataResponse| {
        decoded.brokers.clear();
        decoded.controller_id = NOBODY;
        for topic in &mut decoded.topics {
            for partition in &mut topic.partitions {
                partition.leader_id = NOBODY;
                partition.error_code = ResponseError::LeaderNotAvailable.code();
            }
        }
    })
}

/// Returns the response of a broker that does not know a topic.
pub(super) fn without_topic(response: &Bytes, version: i16, name: &str) -> io::Result<Bytes> {
    rewrite(response, version, |decoded: &mut MetadataResponse| {
        for topic in &mut decoded.topics {
            if topic.name.as_ref().is_some_and(|topic| &*topic.0 == name) {
                topic.error_code = ResponseError::UnknownTopicOrPartition.code();
                topic.topic_id = Default::default();
                topic.partitions.clear();
            }
        }
    })
}

/// Returns the response of a broker that can read none of the partitions.
pub(super) fn failed_fetch(response: &Bytes, version: i16, error: i16) -> io::Result<Bytes> {
    rewrite(response, version, |decoded: &mut FetchResponse| {
        for topic in &mut decoded.responses {
            for partition in &mut topic.partitions {
                partition.error_code = error;
                // Like a broker. librdkafka (2.12) cannot skip null.
                partition.records = Some(Bytes::new());
            }
        }
    })
}

/// Changes a response of this version.
pub(super) fn rewrite<R: Decodable + Encodable + HeaderVersion>(
    response: &Bytes,
    version: i16,
    change: impl FnOnce(&mut R),
) -> io::Result<Bytes> {
    let header_version = R::header_version(version);
    let mut body = frame::body(response);
    let decoded = ResponseHeader::decode(&mut body, header_version)
        .and_then(|header| Ok((header, R::decode(&mut body, version)?)));
    let (header, mut decoded) =
        decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    change(&mut decoded);
    frame::of((&header, header_version), (&decoded, version))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::protocol::{Message, StrBytes};

    use super::*;

    #[test]
    fn one_topic_is_unknown_and_the_others_are_not() {
        let topic = |name: &'static str| {
            MetadataResponseTopic::default()
                .with_name(Some(TopicName(StrBytes::from_static_str(name))))
                .with_partitions(vec![MetadataResponsePartition::default()])
        };
        let full = MetadataResponse::default().with_topics(vec![topic("cars"), topic("bikes")]);
        for version in MetadataResponse::VERSIONS.min..=MetadataResponse::VERSIONS.max {
            let header = ResponseHeader::default();
            let header_version = MetadataResponse::header_version(version);
            let frame = frame::of((&header, header_version), (&full, version)).unwrap();
            let changed = without_topic(&frame, version, "cars").unwrap();
            let mut body = frame::body(&changed);
            ResponseHeader::decode(&mut body, header_version).unwrap();
            let decoded = MetadataResponse::decode(&mut body, version).unwrap();
            let topics = decoded.topics.iter();
            let topics: Vec<_> = topics.map(|t| (t.error_code, t.partitions.len())).collect();
            assert_eq!(topics, [(3, 0), (0, 1)], "version {version}");
        }
    }

    #[test]
    fn an_answer_of_any_version_keeps_its_topics_and_loses_its_brokers() {
        let broker = MetadataResponseBroker::default().with_node_id(BrokerId(1));
        let partition = MetadataResponsePartition::default().with_leader_id(BrokerId(1));
        let topic = MetadataResponseTopic::default()
            .with_name(Some(Default::default()))
            .with_partitions(vec![partition]);
        let full = MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_topics(vec![topic]);
        for version in MetadataResponse::VERSIONS.min..=MetadataResponse::VERSIONS.max {
            let header = ResponseHeader::default().with_correlation_id(77);
            let header_version = MetadataResponse::header_version(version);
            let frame = frame::of((&header, header_version), (&full, version)).unwrap();
            let changed = without_brokers(&frame, version).unwrap();
            assert_eq!(frame::correlation(&changed).unwrap(), 77);
            let mut body = frame::body(&changed);
            ResponseHeader::decode(&mut body, header_version).unwrap();
            let decoded = MetadataResponse::decode(&mut body, version).unwrap();
            assert!(body.is_empty() && decoded.brokers.is_empty());
            let partition = &decoded.topics[0].partitions[0];
            assert_eq!((partition.leader_id, partition.error_code), (NOBODY, 5));
        }
    }
}
