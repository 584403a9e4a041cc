//! The table that maps Kafka's errors to the SDK's.

use std::any::Any;

use millstream_core::{Error, ErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

/// Returns the kind of an error of librdkafka or of a broker: what the caller can do about it. This is the table.
pub(crate) fn kind(code: RDKafkaErrorCode) -> ErrorKind {
    use RDKafkaErrorCode as Code;
    match code {
        Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicId
        | Code::UnknownGroup
        | Code::GroupIdNotFound
        | Code::ResourceNotFound => ErrorKind::NotFound,
        Code::TopicAlreadyExists => ErrorKind::AlreadyExists,
        Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::MessageBatchTooLarge
        | Code::OffsetMetadataTooLarge => ErrorKind::TooLarge,
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::DelegationTokenAuthorizationFailed
        | Code::PolicyViolation
        | Code::TopicDeletionDisabled => ErrorKind::Denied,
        Code::SecurityDisabled => ErrorKind::Unauthenticated,
        Code::UnknownMemberId
        | Code::IllegalGeneration
        | Code::FencedMemberEpoch
        | Code::StaleMemberEpoch
        | Code::FencedInstanceId
        | Code::AssignmentLost
        | Code::PollExceeded
        | Code::Fenced
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::TransactionCoordinatorFenced => ErrorKind::Fenced,
        Code::ThrottlingQuotaExceeded | Code::QueueFull => ErrorKind::Throttled,
        Code::MessageTimedOut
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::TimedOutQueue
        | Code::PurgeInflight => ErrorKind::Timeout,
        Code::BadMessage
        | Code::BadCompression
        | Code::InvalidMessage
        | Code::UnsupportedCompressionType
        | Code::LogTruncation => ErrorKind::Corrupt,
        Code::OffsetOutOfRange | Code::AutoOffsetReset => ErrorKind::DataLoss,
        Code::UnsupportedFeature
        | Code::NotImplemented
        | Code::UnsupportedVersion
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedAssignor => ErrorKind::Unsupported,
        Code::InvalidArgument
        | Code::InvalidTopic
        | Code::InvalidGroupId
        | Code::InvalidSessionTimeout
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidReplicaAssignment
        | Code::InvalidConfig
        | Code::InvalidRequest
        | Code::InvalidTimestamp
        | Code::InvalidRequiredAcks
        | Code::InvalidTransactionTimeout
        | Code::InvalidRecord
        | Code::InconsistentGroupProtocol
        | Code::UnreleasedInstanceId
        | Code::NonEmptyGroup => ErrorKind::Invalid,
        Code::BrokerDestroy | Code::PurgeQueue => ErrorKind::Closed,
        // All other errors are temporary, or may be: no leader yet, a coordinator that moves, a connection lost. This
        // includes a connection whose login was refused after earlier ones were accepted: requests that waited for it
        // get this error (`Authentication` and the like). `connection` decides whether the login itself has failed.
        _ => ErrorKind::Unavailable,
    }
}

/// Creates an error of the SDK, with librdkafka's as its source.
pub(crate) fn from(operation: &'static str, error: KafkaError) -> Error {
    // rdkafka's own text ends with the value of the setting, which may be a password.
    if let KafkaError::ClientConfig(_, said, key, _) = &error {
        return Error::new(ErrorKind::Invalid, operation, format!("{key}: {said}"));
    }
    let kind = match (&error, error.rdkafka_error_code()) {
        (
            KafkaError::ClientCreation(_) | KafkaError::AdminOpCreation(_) | KafkaError::Nul(_),
            _,
        ) => ErrorKind::Invalid,
        // `rdkafka_error_code` does not return the code of this variant.
        (KafkaError::AdminOp(code), _) => kind(*code),
        (_, Some(code)) => kind(code),
        (_, None) => ErrorKind::Unavailable,
    };
    Error::new(kind, operation, error.to_string()).with_source(error)
}

/// Creates an error like [`from`], from a bare code.
pub(crate) fn from_code(operation: &'static str, code: RDKafkaErrorCode) -> Error {
    from(operation, KafkaError::Global(code))
}

/// Returns the kind like [`kind`], from the number of a code, which may be one of a newer broker.
pub(crate) fn kind_of(code: i32) -> ErrorKind {
    known(code).map_or(ErrorKind::Unavailable, kind)
}

/// Creates an error like [`from_code`], from the number of a code, which may be one of a newer broker.
pub(crate) fn from_number(operation: &'static str, code: i32) -> Error {
    known(code).map_or_else(
        || {
            let message = format!("error {code} of the broker, which librdkafka does not know");
            Error::new(kind_of(code), operation, message)
        },
        |code| from_code(operation, code),
    )
}

fn known(code: i32) -> Option<RDKafkaErrorCode> {
    RDKafkaRespErr::try_from(code).ok().map(Into::into)
}

/// Returns whether a broker no longer knows a member. While a rebalance event is not acknowledged, no other sign shows
/// it. At other times the client is about to notice it, and to join again.
pub(crate) fn is_gone(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::FencedMemberEpoch
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::Fenced
    )
}

/// Returns the message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let message = panic.downcast_ref::<&str>().copied();
    message
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Returns the error of a thread that could not be started.
pub(crate) fn no_thread(operation: &'static str, failed: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "cannot start a thread").with_source(failed)
}

/// Returns the error of a commit that was not stored. If the commit failed because the generation changed, the member
/// is not fenced permanently: a member that stays gets the next generation in a moment, and one that does not stay is
/// notified by its client.
pub(crate) fn not_stored(operation: &'static str, code: RDKafkaErrorCode) -> Error {
    let error = from_code(operation, code);
    if error.kind() == ErrorKind::NotFound {
        // The brokers that lead the topic are asked whether it is gone.
        let message = "the coordinator of the group does not know the topic, or not yet";
        return Error::new(ErrorKind::Unavailable, operation, message).with_source(error);
    }
    if error.kind() != ErrorKind::Fenced || is_gone(code) {
        return error;
    }
    let message = "the group is about to change its generation";
    Error::new(ErrorKind::Unavailable, operation, message).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        use RDKafkaErrorCode as Code;
        for (code, expected) in [
            (Code::UnknownTopicOrPartition, ErrorKind::NotFound),
            (Code::TopicAlreadyExists, ErrorKind::AlreadyExists),
            (Code::MessageSizeTooLarge, ErrorKind::TooLarge),
            (Code::TopicAuthorizationFailed, ErrorKind::Denied),
            (Code::GroupAuthorizationFailed, ErrorKind::Denied),
            // A request whose connection was refused after earlier ones were accepted.
            (Code::Authentication, ErrorKind::Unavailable),
            (Code::UnknownMemberId, ErrorKind::Fenced),
            (Code::IllegalGeneration, ErrorKind::Fenced),
            (Code::StaleMemberEpoch, ErrorKind::Fenced),
            (Code::ThrottlingQuotaExceeded, ErrorKind::Throttled),
            (Code::MessageTimedOut, ErrorKind::Timeout),
            (Code::InvalidMessage, ErrorKind::Corrupt),
            (Code::OffsetOutOfRange, ErrorKind::DataLoss),
            (Code::UnsupportedVersion, ErrorKind::Unsupported),
            (Code::InvalidSessionTimeout, ErrorKind::Invalid),
            (Code::BrokerTransportFailure, ErrorKind::Unavailable),
            (Code::NotCoordinator, ErrorKind::Unavailable),
            (Code::LeaderNotAvailable, ErrorKind::Unavailable),
            // One broker has left the cluster. The client continues.
            (Code::DestroyBroker, ErrorKind::Unavailable),
            (Code::RebalanceInProgress, ErrorKind::Unavailable),
        ] {
            let error = from_code("test", code);
            assert_eq!(error.kind(), expected, "{code:?}");
        }
    }

    #[test]
    fn a_number_of_a_newer_broker_is_temporary_and_named() {
        let error = from_number("read", 103);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("103"), "{error}");
        let known = from_number("read", RDKafkaErrorCode::OffsetOutOfRange as i32);
        assert_eq!(known.kind(), ErrorKind::DataLoss);
    }

    #[test]
    fn a_setting_that_librdkafka_refuses_is_invalid() {
        let refused = rdkafka::ClientConfig::new()
            .set("no.such.key", "1")
            .create_native_config()
            .err()
            .unwrap();
        assert_eq!(from("connect", refused).kind(), ErrorKind::Invalid);
    }
}
