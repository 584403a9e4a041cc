//! Decodes requests, and encodes the responses that the proxy returns instead of the broker.

use std::io;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, EndTxnRequest, MetadataRequest, OffsetCommitRequest, OffsetCommitResponse,
    ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, SaslAuthenticateResponse,
    TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};
use kafka_protocol::protocol::{
    Decodable, Encodable, HeaderVersion, StrBytes, decode_request_header_from_buffer,
};

use crate::kafka::frame;

/// A request, as far as faults distinguish it.
#[derive(Debug)]
pub(super) struct Request {
    header: RequestHeader,
    pub(super) operation: Operation,
}

/// The purpose of a request.
#[derive(Debug)]
pub(super) enum Operation {
    /// Stores records.
    Produce(ProduceRequest),
    /// Stores the checkpoint of a group.
    Commit(OffsetCommitRequest),
    /// Stores the checkpoint of a group within a transaction.
    Step(TxnOffsetCommitRequest),
    /// Commits or aborts a transaction.
    EndStep(EndTxnRequest),
    /// Requests the brokers of the cluster and the leaders of partitions.
    Metadata(MetadataRequest),
    /// Logs in, or is one step of a login.
    Login,
    /// Reads records.
    Fetch,
    /// A request that no fault applies to.
    Other,
}

impl Request {
    pub(super) fn parse(frame: &Bytes) -> io::Result<Self> {
        Self::decode(frame::body(frame))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn decode(mut body: Bytes) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let header = decode_request_header_from_buffer(&mut body)?;
        let version = header.request_api_version;
        let operation = match ApiKey::try_from(header.request_api_key) {
            Ok(ApiKey::Produce) => Operation::Produce(ProduceRequest::decode(&mut body, version)?),
            Ok(ApiKey::OffsetCommit) => {
                Operation::Commit(OffsetCommitRequest::decode(&mut body, version)?)
            }
            Ok(ApiKey::TxnOffsetCommit) => {
                Operation::Step(TxnOffsetCommitRequest::decode(&mut body, version)?)
            }
            Ok(ApiKey::EndTxn) => Operation::EndStep(EndTxnRequest::decode(&mut body, version)?),
            Ok(ApiKey::Metadata) => {
                Operation::Metadata(MetadataRequest::decode(&mut body, version)?)
            }
            Ok(ApiKey::SaslAuthenticate) => Operation::Login,
            Ok(ApiKey::Fetch) => Operation::Fetch,
            _ => Operation::Other,
        };
        Ok(Self { header, operation })
    }

    /// Returns the client id.
    pub(super) fn client(&self) -> &str {
        self.header.client_id.as_deref().unwrap_or_default()
    }

    /// Returns its API key, if it is a known one.
    pub(super) fn api(&self) -> Option<ApiKey> {
        ApiKey::try_from(self.header.request_api_key).ok()
    }

    /// Returns the version of its API.
    pub(super) fn version(&self) -> i16 {
        self.header.request_api_version
    }

    /// Returns its correlation id.
    pub(super) fn correlation(&self) -> i32 {
        self.header.correlation_id
    }

    /// Returns the response to a produce request, with this error for every
    /// partition.
    pub(super) fn produce_response(
        &self,
        produce: &ProduceRequest,
        error: i16,
    ) -> io::Result<Bytes> {
        let topics = produce.topic_data.iter().map(|topic| {
            let partitions = topic.partition_data.iter().map(|partition| {
                PartitionProduceResponse::default()
                    .with_index(partition.index)
                    .with_error_code(error)
                    .with_base_offset(-1)
            });
            TopicProduceResponse::default()
                .with_name(topic.name.clone())
                .with_partition_responses(partitions.collect())
        });
        self.response(&ProduceResponse::default().with_responses(topics.collect()))
    }

    /// Returns the response to a commit, with this error for every partition; 0 is success.
    pub(super) fn commit_response(
        &self,
        commit: &OffsetCommitRequest,
        error: i16,
    ) -> io::Result<Bytes> {
        let topics = commit.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                OffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(error)
            });
            OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        self.response(&OffsetCommitResponse::default().with_topics(topics.collect()))
    }

    /// Like [`commit_response`](Self::commit_response), for a commit within a transaction.
    pub(super) fn step_response(
        &self,
        step: &TxnOffsetCommitRequest,
        error: i16,
    ) -> io::Result<Bytes> {
        let topics = step.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                TxnOffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(error)
            });
            TxnOffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        self.response(&TxnOffsetCommitResponse::default().with_topics(topics.collect()))
    }

    /// Returns the response that refuses a login.
    pub(super) fn refused_login(&self, message: &'static str) -> io::Result<Bytes> {
        let refused = SaslAuthenticateResponse::default()
            .with_error_code(ResponseError::SaslAuthenticationFailed.code())
            .with_error_message(Some(StrBytes::from_static_str(message)));
        self.response(&refused)
    }

    fn response<R: Encodable + HeaderVersion>(&self, response: &R) -> io::Result<Bytes> {
        let header = ResponseHeader::default().with_correlation_id(self.correlation());
        let version = self.version();
        let header_version = R::header_version(version);
        frame::of((&header, header_version), (response, version))
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::offset_commit_request::{
        OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    };
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::txn_offset_commit_request::{
        TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
    };
    use kafka_protocol::messages::{GroupId, TopicName};
    use kafka_protocol::protocol::Message;

    use super::*;

    fn name(name: &'static str) -> TopicName {
        TopicName(StrBytes::from_static_str(name))
    }

    fn framed<R: Encodable + HeaderVersion>(key: ApiKey, version: i16, request: &R) -> Bytes {
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(77)
            .with_client_id(Some(StrBytes::from_static_str("cars.a")));
        frame::of((&header, R::header_version(version)), (request, version)).unwrap()
    }

    /// Decodes a response without its header.
    fn decode_response<R: Decodable + HeaderVersion>(response: &Bytes, version: i16) -> R {
        assert_eq!(frame::correlation(response).unwrap(), 77);
        let mut body = frame::body(response);
        ResponseHeader::decode(&mut body, R::header_version(version)).unwrap();
        let decoded = R::decode(&mut body, version).unwrap();
        assert!(body.is_empty(), "version {version}");
        decoded
    }

    #[test]
    fn a_produce_request_of_any_version_is_answered_for_each_of_its_partitions() {
        let partitions = [0, 3].map(|index| PartitionProduceData::default().with_index(index));
        let topic = TopicProduceData::default()
            .with_name(name("cars"))
            .with_partition_data(partitions.to_vec());
        let produce = ProduceRequest::default().with_topic_data(vec![topic]);
        // From version 13 on it has ids in place of names, which no client here uses.
        for version in ProduceRequest::VERSIONS.min..=12 {
            let frame = framed(ApiKey::Produce, version, &produce);
            let request = Request::parse(&frame).unwrap();
            assert_eq!((request.client(), request.correlation()), ("cars.a", 77));
            let Operation::Produce(produce) = &request.operation else {
                panic!("{request:?}")
            };
            let response = request.produce_response(produce, 19).unwrap();
            let decoded: ProduceResponse = decode_response(&response, version);
            let [topic] = &decoded.responses[..] else {
                panic!("{decoded:?}")
            };
            assert_eq!(&*topic.name.0, "cars");
            let decoded = topic.partition_responses.iter();
            let decoded: Vec<_> = decoded.map(|p| (p.index, p.error_code)).collect();
            assert_eq!(decoded, [(0, 19), (3, 19)], "version {version}");
        }
    }

    #[test]
    fn a_commit_of_any_version_is_answered_for_each_of_its_partitions() {
        let partitions = [0, 3].map(|index| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(9)
        });
        let topic = OffsetCommitRequestTopic::default()
            .with_name(name("cars"))
            .with_partitions(partitions.to_vec());
        let commit = OffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str("analytics")))
            .with_topics(vec![topic]);
        for version in OffsetCommitRequest::VERSIONS.min..=OffsetCommitRequest::VERSIONS.max {
            let frame = framed(ApiKey::OffsetCommit, version, &commit);
            let request = Request::parse(&frame).unwrap();
            let Operation::Commit(commit) = &request.operation else {
                panic!("{request:?}")
            };
            assert_eq!(&*commit.group_id.0, "analytics");
            let response = request.commit_response(commit, 27).unwrap();
            let decoded: OffsetCommitResponse = decode_response(&response, version);
            let [topic] = &decoded.topics[..] else {
                panic!("{decoded:?}")
            };
            assert_eq!(&*topic.name.0, "cars");
            let decoded = topic.partitions.iter();
            let decoded: Vec<_> = decoded.map(|p| (p.partition_index, p.error_code)).collect();
            assert_eq!(decoded, [(0, 27), (3, 27)], "version {version}");
        }
    }

    #[test]
    fn a_step_of_any_version_is_answered_for_each_of_its_partitions() {
        let partitions = [0, 3].map(|index| {
            TxnOffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(9)
        });
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(name("cars"))
            .with_partitions(partitions.to_vec());
        let step = TxnOffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str("analytics")))
            .with_topics(vec![topic]);
        for version in TxnOffsetCommitRequest::VERSIONS.min..=TxnOffsetCommitRequest::VERSIONS.max {
            let frame = framed(ApiKey::TxnOffsetCommit, version, &step);
            let request = Request::parse(&frame).unwrap();
            let Operation::Step(step) = &request.operation else {
                panic!("{request:?}")
            };
            assert_eq!(&*step.group_id.0, "analytics");
            let response = request.step_response(step, 25).unwrap();
            let decoded: TxnOffsetCommitResponse = decode_response(&response, version);
            let [topic] = &decoded.topics[..] else {
                panic!("{decoded:?}")
            };
            assert_eq!(&*topic.name.0, "cars");
            let decoded = topic.partitions.iter();
            let decoded: Vec<_> = decoded.map(|p| (p.partition_index, p.error_code)).collect();
            assert_eq!(decoded, [(0, 25), (3, 25)], "version {version}");
        }
    }

    #[test]
    fn a_request_that_is_cut_short_is_an_error() {
        let frame = framed(ApiKey::OffsetCommit, 9, &OffsetCommitRequest::default());
        let error = Request::parse(&frame.slice(..frame.len() - 2)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
