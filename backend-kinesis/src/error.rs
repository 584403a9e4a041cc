//! The table from the errors of Kinesis and DynamoDB to the SDK's.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use millstream_core::{Error, ErrorKind};
use tokio::time::Instant;

use crate::causes::find;
use crate::credit::Credit;
use crate::http::Stalled;

const NO_CREDENTIALS: &str =
    "no credentials: give them by the environment, a profile, or `credentials`";

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
fn kind_of<E>(error: &SdkError<E, HttpResponse>) -> ErrorKind
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let by_code = service.err().code().and_then(kind);
            by_code.unwrap_or_else(|| match service.raw().status().as_u16() {
                403 | 407 => ErrorKind::Denied,
                408 => ErrorKind::Timeout,
                413 => ErrorKind::TooLarge,
                429 => ErrorKind::Throttled,
                // The request came to a server that is not responsible, or too early.
                421 | 425 => ErrorKind::Unavailable,
                400..500 => ErrorKind::Invalid,
                _ => ErrorKind::Unavailable,
            })
        }
        SdkError::TimeoutError(_) => ErrorKind::Timeout,
        // There is no response, so it is not known whether the request was applied.
        SdkError::ResponseError(_) => match find::<Stalled>(error) {
            Some(_) => ErrorKind::Timeout,
            None => ErrorKind::Unavailable,
        },
        SdkError::DispatchFailure(failure) if failure.is_timeout() => ErrorKind::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_user() => ErrorKind::Invalid,
        SdkError::DispatchFailure(failure) if failure.is_io() => ErrorKind::Unavailable,
        SdkError::DispatchFailure(_) => {
            let of_credentials = find::<CredentialsError>(error).map(kind_of_credentials);
            of_credentials.unwrap_or(ErrorKind::Unavailable)
        }
        _ => ErrorKind::Invalid,
    }
}

/// Returns the error kind of credentials that could not be loaded.
fn kind_of_credentials(error: &CredentialsError) -> ErrorKind {
    match error {
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
            ErrorKind::Unauthenticated
        }
        // The failure of a provider, such as a token service that does not respond.
        _ => ErrorKind::Unavailable,
    }
}

/// Returns the SDK's error for credentials that could not be loaded.
pub(crate) fn of_credentials(operation: &'static str, error: CredentialsError) -> Error {
    let kind = kind_of_credentials(&error);
    let message = match kind {
        ErrorKind::Unauthenticated => NO_CREDENTIALS,
        _ => "the provider of the credentials failed",
    };
    Error::new(kind, operation, message).with_source(error)
}

/// Returns the SDK's error for a failed call. Credentials that were accepted before, and may be again, are
/// `Unavailable`.
pub(crate) fn of<E>(
    operation: &'static str,
    error: SdkError<E, HttpResponse>,
    credit: &Credit,
) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let kind = match kind_of(&error) {
        ErrorKind::Unauthenticated if credit.outlasts_refusal(Instant::now()) => {
            ErrorKind::Unavailable
        }
        kind => kind,
    };
    let message = match &error {
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or("an unknown error");
            match service.err().message() {
                Some(message) if !message.is_empty() => format!("{code}: {message}"),
                _ => code.to_owned(),
            }
        }
        SdkError::TimeoutError(_) => "no response within the time of one request".to_owned(),
        SdkError::DispatchFailure(_) if kind == ErrorKind::Unauthenticated => {
            NO_CREDENTIALS.to_owned()
        }
        SdkError::DispatchFailure(_) if find::<CredentialsError>(&error).is_some() => {
            "the provider of the credentials failed".to_owned()
        }
        SdkError::DispatchFailure(_) => "the endpoint cannot be reached".to_owned(),
        SdkError::ResponseError(_) => {
            "the response ended early, or is not of this service".to_owned()
        }
        _ => "the request cannot be built".to_owned(),
    };
    Error::new(kind, operation, message).with_source(error)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_sdk_kinesis::operation::list_shards::ListShardsError;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::body::SdkBody;
    use aws_smithy_types::error::ErrorMetadata;

    use super::*;

    type Failed = SdkError<ListShardsError, HttpResponse>;

    fn rejected(status: u16, code: Option<&str>) -> Failed {
        let mut metadata = ErrorMetadata::builder();
        if let Some(code) = code {
            metadata = metadata.code(code);
        }
        let status = status.try_into().unwrap();
        let response = HttpResponse::new(status, SdkBody::empty());
        SdkError::service_error(ListShardsError::generic(metadata.build()), response)
    }

    #[test]
    fn statuses_without_a_code() {
        for (status, expected) in [
            (400, ErrorKind::Invalid),
            (403, ErrorKind::Denied),
            (407, ErrorKind::Denied),
            (408, ErrorKind::Timeout),
            (413, ErrorKind::TooLarge),
            (421, ErrorKind::Unavailable),
            (425, ErrorKind::Unavailable),
            (429, ErrorKind::Throttled),
            (500, ErrorKind::Unavailable),
        ] {
            let error = of("test", rejected(status, None), &Credit::default());
            assert_eq!(error.kind(), expected, "{status}");
        }
    }

    #[test]
    fn credentials_that_were_accepted_may_be_again() {
        let credit = Credit::default().with_patience(Duration::from_secs(10));
        let expired = || rejected(400, Some("ExpiredTokenException"));
        let error = of("test", expired(), &credit);
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        credit.accepted();
        assert_eq!(
            of("test", expired(), &credit).kind(),
            ErrorKind::Unavailable
        );
        let denied = rejected(400, Some("AccessDeniedException"));
        assert_eq!(of("test", denied, &credit).kind(), ErrorKind::Denied);
    }

    #[test]
    fn credentials_that_cannot_be_loaded_are_told_by_type() {
        for (error, expected) in [
            (
                CredentialsError::not_loaded_no_source(),
                ErrorKind::Unauthenticated,
            ),
            (
                CredentialsError::invalid_configuration("a loop"),
                ErrorKind::Unauthenticated,
            ),
            (
                CredentialsError::provider_error("no credentials: 503"),
                ErrorKind::Unavailable,
            ),
            (
                CredentialsError::provider_timed_out(Duration::from_secs(5)),
                ErrorKind::Unavailable,
            ),
        ] {
            let failed = ConnectorError::other(error.into(), None);
            let failed: Failed = SdkError::dispatch_failure(failed);
            let error = of("test", failed, &Credit::default());
            assert_eq!(error.kind(), expected, "{error}");
        }
    }

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
