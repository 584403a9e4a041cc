//! Responses that the proxy returns instead of a service, and changes to forwarded ones.

use std::io;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// A response to a client.
pub(super) type ProxyResponse = Response<ProxyBody>;

pub(super) type ProxyBody = BoxBody<Bytes, io::Error>;

/// An error of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The limit of a shard or of a table is reached.
    Throttled,
    /// The service failed.
    Internal,
    /// A quota of the account is reached.
    LimitExceeded,
    /// The credentials are not valid any more.
    ExpiredToken,
}

impl Refusal {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Throttled => "ProvisionedThroughputExceededException",
            Self::Internal => "InternalFailure",
            Self::LimitExceeded => "LimitExceededException",
            Self::ExpiredToken => "ExpiredTokenException",
        }
    }

    /// Returns the error of a whole request.
    pub(super) fn into_response(self) -> ProxyResponse {
        let status = match self {
            Self::Throttled | Self::LimitExceeded | Self::ExpiredToken => StatusCode::BAD_REQUEST,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        of(
            status,
            &json!({"__type": self.code(), "message": "by the proxy"}),
        )
    }

    /// Returns the error of one record of a batch.
    pub(super) fn entry(self) -> Value {
        json!({"ErrorCode": self.code(), "ErrorMessage": "by the proxy"})
    }
}

/// Returns a response with this body, or an empty one if it is null.
pub(super) fn of(status: StatusCode, body: &Value) -> ProxyResponse {
    let body = match body {
        Value::Null => Bytes::new(),
        body => Bytes::from(body.to_string()),
    };
    let body = Full::new(body).map_err(|never| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/x-amz-json-1.1");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Returns the header of an event stream that nothing follows.
pub(super) fn mute() -> ProxyResponse {
    let nothing = stream::pending::<io::Result<Frame<Bytes>>>();
    let mut response = Response::new(StreamBody::new(nothing).boxed());
    let events = HeaderValue::from_static("application/vnd.amazon.eventstream");
    response.headers_mut().insert(CONTENT_TYPE, events);
    response
}

/// Returns the response to a batch of which some records were not forwarded: the response to the others, if
/// any, with the errors inserted at their indexes.
pub(super) fn with_failed(batch_response: &Value, failed: &[Option<Refusal>]) -> Value {
    let mut others = batch_response["Records"].as_array().into_iter().flatten();
    let records: Vec<_> = failed
        .iter()
        .map(|failed| match failed {
            Some(refusal) => refusal.entry(),
            None => others.next().cloned().unwrap_or_default(),
        })
        .collect();
    let count = records
        .iter()
        .filter(|record| record.get("ErrorCode").is_some_and(Value::is_string));
    json!({"FailedRecordCount": count.count(), "Records": records})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_places() {
        let batch_response = json!({"FailedRecordCount": 1, "Records": [
            {"SequenceNumber": "7", "ShardId": "a"},
            {"ErrorCode": "InternalFailure", "ErrorMessage": "really"},
        ]});
        let failed = [
            Some(Refusal::Throttled),
            None,
            None,
            Some(Refusal::Internal),
        ];
        let all = with_failed(&batch_response, &failed);
        let codes = all["Records"].as_array().unwrap().iter();
        let codes: Vec<_> = codes.map(|record| record["ErrorCode"].as_str()).collect();
        let throttled = Some(Refusal::Throttled.code());
        let internal = Some(Refusal::Internal.code());
        assert_eq!(codes, [throttled, None, internal, internal]);
        assert_eq!(all["Records"][1]["SequenceNumber"], "7");
        assert_eq!(all["FailedRecordCount"], 3);
    }
}
