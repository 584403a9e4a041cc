//! Interprets the error code of a delivery report.

use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::types::RDKafkaRespErr as Raw;

use crate::native::delivery::Report;

const NO_TOPIC: i32 = Raw::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC as i32;
const NO_TOPIC_AT_BROKER: i32 = Raw::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART as i32;
/// For a record that was sent to a partition of a topic without partitions.
const NO_PARTITION: i32 = Raw::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION as i32;
/// For a record in the queue of a partition when its topic was found to be missing.
const TOPIC_REMOVED: i32 = Raw::RD_KAFKA_RESP_ERR__DESTROY as i32;

/// Returns the error of the topic if it is missing or forbidden.
pub(super) fn topic_error(report: Report) -> Option<Code> {
    const DENIED: i32 = Raw::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED as i32;
    match report {
        Report::Failed { code: DENIED, .. } => Some(Code::TopicAuthorizationFailed),
        Report::Failed {
            code: NO_TOPIC | NO_TOPIC_AT_BROKER | NO_PARTITION | TOPIC_REMOVED,
            ..
        } => Some(Code::UnknownTopicOrPartition),
        _ => None,
    }
}

/// Returns whether a record was not sent because a broker did not know its topic.
pub(super) fn is_unknown_topic(report: Report) -> bool {
    matches!(
        report,
        Report::Failed {
            code: NO_TOPIC | NO_TOPIC_AT_BROKER | NO_PARTITION | TOPIC_REMOVED,
            maybe_stored: false,
            ..
        }
    )
}

/// Returns whether a client did not send a record because the client has failed, or because its login was refused
/// again, which also ends it.
pub(super) fn is_unsent(report: Report) -> bool {
    const PURGED: i32 = Raw::RD_KAFKA_RESP_ERR__PURGE_QUEUE as i32;
    const FATAL: i32 = Raw::RD_KAFKA_RESP_ERR__FATAL as i32;
    // A broker responds in the order of the requests, so records that fail because of a refused login were not sent.
    const LOGIN_REFUSED: i32 = Raw::RD_KAFKA_RESP_ERR__AUTHENTICATION as i32;
    const NO_MECHANISM: i32 = Raw::RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM as i32;
    const LOGIN_STATE: i32 = Raw::RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE as i32;
    matches!(
        report,
        Report::Failed {
            code: PURGED | FATAL | LOGIN_REFUSED | NO_MECHANISM | LOGIN_STATE,
            maybe_stored: false,
            ..
        }
    )
}
