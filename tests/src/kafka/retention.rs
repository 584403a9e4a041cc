//! Deletes the records of a topic, like retention.

use std::io;

use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{DeleteRecordsRequest, MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::wire_request::send_request;

/// Removes all records of the topic, on a broker that leads all its partitions.
pub(super) async fn trim(port: u16, topic: &str) -> io::Result<()> {
    let name = TopicName(StrBytes::from_string(topic.to_owned()));
    let wanted = MetadataRequestTopic::default().with_name(Some(name.clone()));
    let metadata = MetadataRequest::default()
        .with_topics(Some(vec![wanted]))
        .with_allow_auto_topic_creation(false);
    let metadata = send_request(port, 9, &metadata).await?;
    let partitions = metadata
        .topics
        .into_iter()
        .flat_map(|topic| topic.partitions);
    // The offset that means the high watermark.
    const END: i64 = -1;
    let partitions = partitions.map(|partition| {
        DeleteRecordsPartition::default()
            .with_partition_index(partition.partition_index)
            .with_offset(END)
    });
    let topic = DeleteRecordsTopic::default()
        .with_name(name)
        .with_partitions(partitions.collect());
    let delete = DeleteRecordsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000);
    let deleted = send_request(port, 2, &delete).await?;
    let mut done = deleted.topics.iter().flat_map(|topic| &topic.partitions);
    match done.find(|partition| partition.error_code != 0) {
        None => Ok(()),
        Some(failed) => Err(io::Error::other(format!("{failed:?}"))),
    }
}
