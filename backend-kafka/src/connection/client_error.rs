//! Classifies errors that belong to no call: whether they may pass by themselves, and what they are about.
//!
//! librdkafka reports a code and a text. Some codes cover both temporary and permanent errors, and the names of
//! topics are only in the text. The texts are librdkafka's own and not guaranteed. If a text is not known, the name
//! is left out, and the kind of the error stays the same.

use std::borrow::Cow;

use millstream_core::{Error, ErrorKind};
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::error;

/// Returns the error, or `None` if it may pass by itself.
pub(crate) fn classify(operation: &'static str, code: Code, reason: &str) -> Option<Error> {
    let kind = match code {
        Code::Authentication | Code::SSL if is_of_the_way(reason) => return None,
        // Amazon MSK refuses the login if a client makes more connections per second than it allows.
        Code::Authentication if is_throttling(reason) => ErrorKind::Throttled,
        Code::Authentication
        | Code::SSL
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState => ErrorKind::Unauthenticated,
        // With TLS 1.3 a broker refuses a certificate after the handshake is complete for the client.
        Code::BrokerTransportFailure if is_alert(reason) => ErrorKind::Unauthenticated,
        // A fatal error ends the client. Its cause is only in the text.
        Code::Fatal => FATAL
            .iter()
            .find(|(words, _)| reason.contains(words))
            .map_or(ErrorKind::Unavailable, |(_, code)| error::kind(*code)),
        code => error::kind(code),
    };
    match kind {
        ErrorKind::Unauthenticated => {
            let message = format!("the login is refused, check `security`: {reason}");
            Some(Error::new(kind, "connect", message))
        }
        ErrorKind::Throttled if code == Code::Authentication => {
            Some(Error::new(kind, "connect", reason.to_owned()))
        }
        ErrorKind::Denied => {
            let told = Error::new(kind, operation, format!("no permission: {reason}"));
            Some(match topic(reason) {
                Some(topic) => told.with_stream(topic),
                None => told,
            })
        }
        ErrorKind::Invalid if code == Code::InconsistentGroupProtocol => {
            let message = format!(
                "the members of the group use another assignment strategy, as `range` or `roundrobin`: \
                 end all of them, and then start this kind, which continues at the group's committed \
                 offsets ({reason})"
            );
            Some(Error::new(kind, operation, message))
        }
        ErrorKind::Invalid => Some(Error::new(kind, operation, reason.to_owned())),
        kind if code == Code::Fatal => Some(Error::new(kind, operation, reason.to_owned())),
        _ => None,
    }
}

/// Returns the reason from a line of librdkafka's log (2.12) that reports that a broker has disconnected at the first
/// request, as a broker does that expects TLS. librdkafka does not report it as an error.
pub(crate) fn hang_up(line: &str) -> Option<String> {
    let is_first = line.contains("Disconnected") && line.contains("in state APIVERSION_QUERY");
    let has_tls = line.contains("ssl://");
    (is_first && !has_tls).then(|| format!("{line}: if the broker expects TLS, set security.tls"))
}

/// Adds advice to a failure to connect, where librdkafka's text is too short: a broker that expects no TLS
/// disconnects, or responds with something else.
pub(crate) fn with_advice(reason: &str) -> Cow<'_, str> {
    let is_hang_up = reason.contains("closed by peer") && reason.contains("in state SSL_HANDSHAKE");
    match is_hang_up {
        true => format!("{reason}: if the broker expects no TLS, leave security.tls out").into(),
        false => reason.into(),
    }
}

/// The texts of errors by which a broker may permanently refuse a client.
const FATAL: [(&str, Code); 9] = [
    ("Group authorization failed", Code::GroupAuthorizationFailed),
    ("Topic authorization failed", Code::TopicAuthorizationFailed),
    (
        "Cluster authorization failed",
        Code::ClusterAuthorizationFailed,
    ),
    (
        "Transactional Id authorization failed",
        Code::TransactionalIdAuthorizationFailed,
    ),
    ("fenced", Code::Fenced),
    ("instance id is still used", Code::UnreleasedInstanceId),
    ("assignor", Code::UnsupportedAssignor),
    ("Unsupported version", Code::UnsupportedVersion),
    ("Invalid request", Code::InvalidRequest),
];

/// Returns whether the connection broke while it was being set up, which says nothing about the login.
fn is_of_the_way(reason: &str) -> bool {
    [
        "Disconnected",
        "SSL transport error",
        "Local: Broker transport failure",
        "Local: Timed out",
        "Broker: Request timed out",
        "timed out",
    ]
    .iter()
    .any(|words| reason.contains(words))
}

fn is_throttling(reason: &str) -> bool {
    reason.contains("Too many connects")
}

fn is_alert(reason: &str) -> bool {
    reason.contains("SSL alert number") || reason.contains(" alert ")
}

/// Returns the topic in a text of librdkafka. No topic name contains a colon or a space.
fn topic(reason: &str) -> Option<&str> {
    let (_, rest) = reason.split_once("topic not available: ")?;
    rest.split(':').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: Code, reason: &str) -> Option<ErrorKind> {
        classify("join", code, reason).map(|error| error.kind())
    }

    /// The texts are those of librdkafka 2.12.
    #[test]
    fn a_refused_login_is_told_apart_from_a_broken_way() {
        for (code, reason, expected) in [
            (
                Code::Authentication,
                "sasl_ssl://b:9092/bootstrap: SASL authentication error: Authentication failed \
                 during authentication due to invalid credentials with SASL mechanism \
                 SCRAM-SHA-256 (after 312ms in state AUTH_REQ)",
                Some(ErrorKind::Unauthenticated),
            ),
            (
                Code::Authentication,
                "sasl_ssl://b:9092/bootstrap: SASL OAUTHBEARER mechanism handshake failed: \
                 Broker: Unsupported SASL mechanism: broker's supported mechanisms: PLAIN",
                Some(ErrorKind::Unauthenticated),
            ),
            (
                Code::Authentication,
                "sasl_ssl://b:9092/1: SASL PLAIN mechanism handshake failed: Local: Broker \
                 transport failure: broker's supported mechanisms: ",
                None,
            ),
            (
                Code::Authentication,
                "Failed to acquire SASL OAUTHBEARER token: no identity at AWS",
                Some(ErrorKind::Unauthenticated),
            ),
            (
                Code::Authentication,
                "sasl_ssl://b:9092/1: SASL authentication error: [d3c1a9ff-6d5a-4b0d-9f5e-5f8e9c3b7a11]: \
                 Too many connects (after 9ms in state AUTH_REQ)",
                Some(ErrorKind::Throttled),
            ),
            (
                Code::SSL,
                "ssl://b:9092/bootstrap: SSL handshake failed: error:0A000086:SSL \
                 routines::certificate verify failed: broker certificate could not be verified",
                Some(ErrorKind::Unauthenticated),
            ),
            (
                Code::SSL,
                "ssl://b:9092/1: SSL handshake failed: SSL transport error: Connection timed out",
                None,
            ),
            (
                Code::BrokerTransportFailure,
                "ssl://b:9092/1: Disconnected: connection closed by peer",
                None,
            ),
        ] {
            assert_eq!(told(code, reason), expected, "{reason}");
        }
    }

    #[test]
    fn a_fatal_error_is_told_by_what_it_was() {
        for (reason, expected) in [
            (
                "Fatal error: Broker: Group authorization failed: ConsumerGroupHeartbeat fatal \
                 error: Broker: Group authorization failed",
                ErrorKind::Denied,
            ),
            (
                "Fatal error: Broker: Static consumer fenced by other consumer with same \
                 group.instance.id",
                ErrorKind::Fenced,
            ),
            ("Fatal error: something new", ErrorKind::Unavailable),
        ] {
            assert_eq!(told(Code::Fatal, reason), Some(expected), "{reason}");
        }
    }

    #[test]
    fn a_broker_that_hangs_up_may_expect_tls() {
        let line = "127.0.0.1:9093/bootstrap: Disconnected (after 2ms in state APIVERSION_QUERY)";
        assert!(hang_up(line).unwrap().ends_with("set security.tls"));
        for other in [
            "127.0.0.1:9093/1: Disconnected (after 600000ms in state UP)",
            "ssl://127.0.0.1:9093/1: Disconnected (after 2ms in state APIVERSION_QUERY)",
        ] {
            assert_eq!(hang_up(other), None);
        }
    }

    #[test]
    fn a_broker_that_hangs_up_in_the_handshake_may_expect_no_tls() {
        let line = "ssl://127.0.0.1:9092/bootstrap: Disconnected: SSL connection closed by peer (after 1ms in \
                    state SSL_HANDSHAKE)";
        assert!(with_advice(line).ends_with("leave security.tls out"));
        let other = "127.0.0.1:9092/1: Disconnected (after 600000ms in state UP)";
        assert_eq!(with_advice(other), other);
    }

    #[test]
    fn a_denial_without_a_known_sentence_has_no_name() {
        let error = classify("join", Code::TopicAuthorizationFailed, "new words").unwrap();
        assert_eq!((error.kind(), error.stream()), (ErrorKind::Denied, None));
    }
}
