//! The table from the errors of Kinesis and DynamoDB to the SDK's.

use std::error::Error as StdError;

use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use millstream_core::{Error, ErrorKind};

/// Returns the error kind for a code. This is the table, with the codes of [Kinesis], of single
/// entries of PutRecords, of [DynamoDB], and those that all AWS services share.
///
/// [Kinesis]: https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html
/// [DynamoDB]: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
pub(crate) fn kind(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "ResourceNotFoundException" | "TableNotFoundException" => ErrorKind::NotFound,
        "TableAlreadyExistsException" => ErrorKind::AlreadyExists,
        "AccessDeniedException" | "AccessDenied" | "OptInRequired" | "KMSAccessDeniedException" => {
            ErrorKind::Denied
        }
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "NotAuthorized" => ErrorKind::Unauthenticated,
        "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "KMSThrottlingException"
        | "TooManyRequestsException" => ErrorKind::Throttled,
        // The stream's key: its owner can fix that, and a retry cannot.
        "KMSDisabledException" | "KMSNotFoundException" | "KMSOptInRequired" => ErrorKind::Denied,
        // A key that is about to be enabled again, or to be deleted.
        "KMSInvalidStateException"
        // A stream, a table or a consumer that is being created, changed or deleted.
        | "ResourceInUseException"
        | "InternalFailure"
        | "InternalFailureException"
        | "InternalServerError"
        | "InternalServerErrorException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "TransactionInProgressException" => ErrorKind::Unavailable,
        "RequestTimeout" | "RequestTimeoutException" => ErrorKind::Timeout,
        "ExpiredIteratorException"
        | "ExpiredNextTokenException"
        | "InvalidArgumentException"
        | "InvalidParameterValue"
        | "InvalidParameterCombination"
        | "InvalidAction"
        | "InvalidQueryParameter"
        | "MalformedQueryString"
        | "MissingAction"
        | "MissingParameter"
        | "SerializationException"
        | "UnknownOperationException"
        | "ValidationException"
        | "ValidationError"
        | "ItemCollectionSizeLimitExceededException" => ErrorKind::Invalid,
        "ConditionalCheckFailedException" => ErrorKind::Fenced,
        _ => return None,
    })
}

/// Returns the error kind of a failed call.
pub(crate) fn kind_of<E>(error: &SdkError<E, HttpResponse>) -> ErrorKind
where
    E: ProvideErrorMetadata,
{
    match error {
        SdkError::ServiceError(service) => {
            let by_code = service.err().code().and_then(kind);
            by_code.unwrap_or_else(|| match service.raw().status().as_u16() {
                403 => ErrorKind::Denied,
                413 => ErrorKind::TooLarge,
                429 => ErrorKind::Throttled,
                400..500 => ErrorKind::Invalid,
                _ => ErrorKind::Unavailable,
            })
        }
        SdkError::TimeoutError(_) => ErrorKind::Timeout,
        // There is no response, so it is not known whether the request was applied.
        SdkError::ResponseError(_) => ErrorKind::Unavailable,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => ErrorKind::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_user() => ErrorKind::Invalid,
        SdkError::DispatchFailure(failure) if failure.is_io() => ErrorKind::Unavailable,
        SdkError::DispatchFailure(failure) => {
            let error = failure.as_connector_error();
            match error.is_some_and(|error| is_of_credentials(error)) {
                true => ErrorKind::Unauthenticated,
                false => ErrorKind::Unavailable,
            }
        }
        _ => ErrorKind::Invalid,
    }
}

/// Returns whether the credentials could not be loaded. The AWS SDK reports that only in the text.
fn is_of_credentials(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("credential") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Returns the SDK's error for a failed call.
pub(crate) fn of<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let kind = kind_of(&error);
    let message = match &error {
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or("an unknown error");
            match service.err().message() {
                Some(message) if !message.is_empty() => format!("{code}: {message}"),
                _ => code.to_owned(),
            }
        }
        SdkError::TimeoutError(_) => "no answer within the time of one request".to_owned(),
        SdkError::DispatchFailure(_) if kind == ErrorKind::Unauthenticated => {
            "no credentials: give them by the environment, a profile, or `credentials`".to_owned()
        }
        SdkError::DispatchFailure(_) => "the endpoint cannot be reached".to_owned(),
        SdkError::ResponseError(_) => "the answer broke off, or is none of this service".to_owned(),
        _ => "the request cannot be made".to_owned(),
    };
    Error::new(kind, operation, message).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        for (code, expected) in [
            ("ResourceNotFoundException", ErrorKind::NotFound),
            ("AccessDeniedException", ErrorKind::Denied),
            ("KMSAccessDeniedException", ErrorKind::Denied),
            ("KMSDisabledException", ErrorKind::Denied),
            ("KMSNotFoundException", ErrorKind::Denied),
            ("KMSOptInRequired", ErrorKind::Denied),
            ("KMSInvalidStateException", ErrorKind::Unavailable),
            ("KMSThrottlingException", ErrorKind::Throttled),
            ("UnrecognizedClientException", ErrorKind::Unauthenticated),
            ("ExpiredTokenException", ErrorKind::Unauthenticated),
            ("InvalidSignatureException", ErrorKind::Unauthenticated),
            (
                "ProvisionedThroughputExceededException",
                ErrorKind::Throttled,
            ),
            ("LimitExceededException", ErrorKind::Throttled),
            ("ThrottlingException", ErrorKind::Throttled),
            ("ResourceInUseException", ErrorKind::Unavailable),
            ("InternalFailure", ErrorKind::Unavailable),
            ("InternalServerError", ErrorKind::Unavailable),
            ("ServiceUnavailable", ErrorKind::Unavailable),
            ("RequestTimeoutException", ErrorKind::Timeout),
            ("ExpiredIteratorException", ErrorKind::Invalid),
            ("InvalidArgumentException", ErrorKind::Invalid),
            ("ValidationException", ErrorKind::Invalid),
            ("ConditionalCheckFailedException", ErrorKind::Fenced),
        ] {
            assert_eq!(kind(code), Some(expected), "{code}");
        }
        assert_eq!(kind("NobodyKnowsThisException"), None);
    }
}
