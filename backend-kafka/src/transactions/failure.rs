//! Classifies the failures of a transaction.

use std::time::Instant;

use millstream_core::{Error, ErrorKind, Result};
use rdkafka::error::{KafkaError, RDKafkaError, RDKafkaErrorCode};

use super::OPERATION;
use super::settings::TRANSACTION_TIMEOUT;
use crate::error;

/// The reason why a transaction was not stored.
pub(crate) struct NotPublished {
    pub(crate) error: Error,
    /// Whether the group no longer knows the member.
    pub(crate) member_is_gone: bool,
}

/// A failed call.
pub(super) struct Failed {
    pub(super) error: KafkaError,
    /// Whether the transaction may be stored nevertheless.
    pub(super) uncertain: bool,
}

impl From<KafkaError> for Failed {
    fn from(error: KafkaError) -> Self {
        Self {
            error,
            uncertain: false,
        }
    }
}

/// Retries a call while librdkafka reports that it is retriable.
pub(super) fn retry(
    deadline: Instant,
    mut call: impl FnMut() -> Result<(), KafkaError>,
) -> Result<(), Failed> {
    loop {
        match call() {
            Err(failed) if is_retriable(&failed) && Instant::now() < deadline => {}
            ended => return Ok(ended?),
        }
    }
}

pub(super) fn is_retriable(failed: &KafkaError) -> bool {
    matches!(failed, KafkaError::Transaction(e) if RDKafkaError::is_retriable(e))
}

pub(super) fn is_fatal(failed: &KafkaError) -> bool {
    matches!(failed, KafkaError::Transaction(e) if RDKafkaError::is_fatal(e))
}

/// Returns the failure of a commit whose result the broker did not report.
pub(super) fn outcome_unknown(failed: Failed) -> NotPublished {
    let message = "the broker did not report whether the transaction was committed; the next owner \
                   resumes from what is stored";
    let error = Error::new(ErrorKind::OutcomeUnknown, OPERATION, message);
    NotPublished {
        error: error.with_source(failed.error),
        member_is_gone: false,
    }
}

/// Returns the failure of an aborted transaction. `record` is the error of its first record that was not stored.
pub(super) fn aborted(record: Option<KafkaError>, failed: Failed) -> NotPublished {
    let code = failed.error.rdkafka_error_code();
    let record = record.or(match failed.error {
        // librdkafka did not accept the record.
        error @ KafkaError::MessageProduction(_) => Some(error),
        _ => None,
    });
    classify(record, code.unwrap_or(RDKafkaErrorCode::Fail))
}

/// Returns the failure. `code` is the error code of the failed call.
fn classify(record: Option<KafkaError>, code: RDKafkaErrorCode) -> NotPublished {
    // A purged record has no error of its own: its transaction was aborted.
    let record = record.filter(|record| {
        let code = record.rdkafka_error_code();
        let purged = [
            RDKafkaErrorCode::PurgeQueue,
            RDKafkaErrorCode::PurgeInflight,
        ];
        code.is_none_or(|code| !purged.contains(&code))
    });
    let codes = [
        record.as_ref().and_then(KafkaError::rdkafka_error_code),
        Some(code),
    ];
    let error = if codes.into_iter().flatten().any(is_producer_fenced) {
        // This says nothing about the member: its own client reports if another member has its instance id.
        // The next transaction uses a new client.
        let message = format!(
            "the broker aborted the transaction: it was open for {TRANSACTION_TIMEOUT:?}, or another \
             member publishes with the same instance_id"
        );
        let source = record.unwrap_or(KafkaError::Global(code));
        Error::new(ErrorKind::Unavailable, OPERATION, message).with_source(source)
    } else if let Some(record) = record {
        error::from(OPERATION, record)
    } else {
        without_record(error::not_stored(OPERATION, code))
    };
    let member_is_gone = error.kind() == ErrorKind::Fenced;
    NotPublished {
        error,
        member_is_gone,
    }
}

/// Changes the kinds of refused records to `Unsupported`, since the runtime reacts to the former by searching for the
/// refused record: a transaction may also be refused because of a setting of the broker.
pub(super) fn without_record(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Invalid | ErrorKind::TooLarge => {
            let message = error.message().to_owned();
            Error::new(ErrorKind::Unsupported, OPERATION, message).with_source(error)
        }
        _ => error,
    }
}

/// Returns whether a producer was fenced, which says nothing about the member.
fn is_producer_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
            | RDKafkaErrorCode::TransactionCoordinatorFenced
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode as Code;

    use super::*;

    /// Returns the kind, and whether the member is gone.
    fn meaning(record: Option<Code>, code: Code) -> (ErrorKind, bool) {
        let failed = classify(record.map(KafkaError::MessageProduction), code);
        (failed.error.kind(), failed.member_is_gone)
    }

    #[test]
    fn temporary_failures_are_retryable_and_no_others() {
        for (record, code, expected) in [
            (None, Code::IllegalGeneration, ErrorKind::Unavailable),
            (
                None,
                Code::CoordinatorLoadInProgress,
                ErrorKind::Unavailable,
            ),
            (None, Code::OperationTimedOut, ErrorKind::Timeout),
            (
                None,
                Code::InvalidTransactionTimeout,
                ErrorKind::Unsupported,
            ),
            (None, Code::OffsetMetadataTooLarge, ErrorKind::Unsupported),
            (
                Some(Code::MessageSizeTooLarge),
                Code::MessageSizeTooLarge,
                ErrorKind::TooLarge,
            ),
            (Some(Code::InvalidTimestamp), Code::Fail, ErrorKind::Invalid),
            (Some(Code::InvalidRecord), Code::Fail, ErrorKind::Invalid),
            (None, Code::GroupAuthorizationFailed, ErrorKind::Denied),
            (
                Some(Code::TopicAuthorizationFailed),
                Code::TopicAuthorizationFailed,
                ErrorKind::Denied,
            ),
            (
                Some(Code::MessageTimedOut),
                Code::MessageTimedOut,
                ErrorKind::Timeout,
            ),
        ] {
            assert_eq!(
                meaning(record, code),
                (expected, false),
                "{record:?} {code:?}"
            );
        }
    }

    #[test]
    fn a_purged_record_does_not_hide_the_reason() {
        for purged in [Code::PurgeQueue, Code::PurgeInflight] {
            assert_eq!(
                meaning(Some(purged), Code::IllegalGeneration),
                (ErrorKind::Unavailable, false)
            );
        }
    }

    #[test]
    fn only_a_member_that_the_group_has_removed_is_gone() {
        for code in [Code::UnknownMemberId, Code::FencedInstanceId] {
            assert_eq!(meaning(None, code), (ErrorKind::Fenced, true));
        }
        // The transaction was open for too long.
        for code in [Code::Fenced, Code::InvalidProducerEpoch] {
            let retried = (ErrorKind::Unavailable, false);
            assert_eq!(meaning(None, code), retried);
            assert_eq!(meaning(Some(code), code), retried);
        }
    }
}
