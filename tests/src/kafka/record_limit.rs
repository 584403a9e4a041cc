//! Lowers the record size limit of a topic.

use std::io;

use kafka_protocol::messages::IncrementalAlterConfigsRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::protocol::StrBytes;

use super::wire_request::send_request;

/// Sets the topic's `max.message.bytes`, or removes it.
pub(super) async fn limit_records(port: u16, topic: &str, bytes: Option<usize>) -> io::Result<()> {
    const TOPIC: i8 = 2;
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    let operation = if bytes.is_some() { SET } else { DELETE };
    let setting = AlterableConfig::default()
        .with_name(StrBytes::from_static_str("max.message.bytes"))
        .with_config_operation(operation)
        .with_value(bytes.map(|bytes| StrBytes::from_string(bytes.to_string())));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(StrBytes::from_string(topic.to_owned()))
        .with_configs(vec![setting]);
    let alter = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let altered = send_request(port, 1, &alter).await?;
    match altered.responses.iter().find(|one| one.error_code != 0) {
        None => Ok(()),
        Some(failed) => Err(io::Error::other(format!("{failed:?}"))),
    }
}
