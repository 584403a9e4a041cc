//! The librdkafka keys that cannot be passed through: those that the SDK sets because a guarantee depends on them,
//! and those that have their own key here.

use millstream_core::{Error, ErrorKind, Result};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use crate::config::Config;

/// A key, or a prefix of keys if it ends with a star, and the reason why it is refused.
type Rule = (&'static str, &'static str);

/// Checks the passed-through settings, key by key.
pub(crate) fn check(config: &Config) -> Result<()> {
    for (key, value) in &config.librdkafka {
        if let Some(reason) = refusal(key) {
            return Err(invalid(format!("librdkafka.{key} is refused: {reason}")));
        }
        let name = one_name(key);
        if name != key && config.librdkafka.contains_key(name) {
            return Err(invalid(format!(
                "librdkafka.{key} and librdkafka.{name} are the same setting: leave one out"
            )));
        }
        let refused = ClientConfig::new().set(key, value).create_native_config();
        match refused.err() {
            None => {}
            Some(KafkaError::ClientConfig(_, said, ..)) => {
                return Err(invalid(format!("librdkafka.{key} is wrong: {said}")));
            }
            Some(_) => {
                return Err(invalid(format!("librdkafka.{key} holds a NUL byte")));
            }
        }
    }
    Ok(())
}

/// Returns the canonical name of a setting that has aliases, so that a default finds the value that the user has set.
pub(crate) fn one_name(key: &str) -> &str {
    let found = ALIASES.iter().find(|(alias, _)| *alias == key);
    found.map_or(key, |(_, name)| name)
}

/// The aliases of keys that may pass through.
const ALIASES: [(&str, &str); 1] = [("max.partition.fetch.bytes", "fetch.message.max.bytes")];

fn refusal(key: &str) -> Option<&'static str> {
    let is_met = |rule: &str| match rule.strip_suffix('*') {
        Some(begin) => key.starts_with(begin),
        None => key == rule,
    };
    let found = REFUSED.iter().find(|(rule, _)| is_met(rule));
    found.map(|(_, reason)| *reason)
}

const PROGRESS: &str = "the SDK stores a group's progress itself, when records are settled";
const START: &str = "where a group begins is `start` of the group";
const ORDER: &str = "records of a key are stored in order and once, which needs the SDK's value";
const ACKS: &str = "a receipt says that all replicas in sync have the record";
const ROOM: &str = "what waits is bounded by the options of `Client::producer`";
const CALLBACK: &str = "the SDK listens for it itself";
const TLS: &str = "set it under `security.tls`";
const SASL: &str = "set the login under `security.sasl`";

/// The table. The first matching rule applies.
const REFUSED: &[Rule] = &[
    // Addresses and identity.
    ("bootstrap.servers", "set `brokers`"),
    ("metadata.broker.list", "set `brokers`"),
    ("client.id", "set `client_id`"),
    // Encryption and login.
    ("security.protocol", "it follows from `security`"),
    ("ssl.ca.*", TLS),
    ("ssl_ca", TLS),
    ("ssl.certificate.*", TLS),
    ("ssl_certificate", TLS),
    ("ssl.key.*", TLS),
    ("ssl_key", TLS),
    (
        "ssl.keystore.*",
        "give certificate and key as PEM under `security.tls`",
    ),
    (
        "ssl.endpoint.identification.algorithm",
        "set `security.tls.verify_hostname`",
    ),
    (
        "enable.ssl.certificate.verification",
        "whoever is on the way could pass for the broker; set `security.tls.ca_file` to the \
         authority that signed the broker's certificate",
    ),
    ("ssl_engine_callback_data", CALLBACK),
    ("sasl.*", SASL),
    ("enable.sasl.oauthbearer.unsecure.jwt", SASL),
    ("https.ca.*", SASL),
    // Groups.
    ("group.id", "the group is named by `Client::group`"),
    ("group.instance.id", "set `consumer.instance_id`"),
    ("group.protocol", "set `consumer.protocol`"),
    ("group.protocol.type", "the SDK's members are consumers"),
    ("partition.assignment.strategy", "set `consumer.protocol`"),
    ("session.timeout.ms", "set `consumer.session_timeout`"),
    ("heartbeat.interval.ms", "set `consumer.heartbeat_interval`"),
    (
        "max.poll.interval.ms",
        "it bounds how long a drain may take, which the SDK counts on",
    ),
    ("enable.auto.commit", PROGRESS),
    ("auto.commit.enable", PROGRESS),
    ("auto.commit.interval.ms", PROGRESS),
    ("enable.auto.offset.store", PROGRESS),
    ("offset.store.*", PROGRESS),
    ("auto.offset.reset", START),
    (
        "isolation.level",
        "records of aborted transactions were never sent, and are not read",
    ),
    (
        "enable.partition.eof",
        "the SDK asks for the end of a partition itself",
    ),
    (
        "allow.auto.create.topics",
        "a stream that does not exist is `NotFound`; create it by `Client::streams`",
    ),
    ("consume.callback.max.messages", CALLBACK),
    (
        "topic.blacklist",
        "a stream that was asked for would be missing without a word",
    ),
    // Sending.
    ("enable.idempotence", ORDER),
    ("enable.gapless.guarantee", ORDER),
    ("max.in.flight*", ORDER),
    ("queuing.strategy", ORDER),
    ("msg_order_cmp", ORDER),
    ("acks", ACKS),
    ("request.required.acks", ACKS),
    ("message.timeout.ms", "set `producer.timeout`"),
    ("delivery.timeout.ms", "set `producer.timeout`"),
    (
        "message.send.max.retries",
        "a record is tried again until `producer.timeout` is over",
    ),
    (
        "retries",
        "a record is tried again until `producer.timeout` is over",
    ),
    (
        "message.max.bytes",
        "what a stream takes is a setting of its topic, and known to its producers",
    ),
    ("queue.buffering.max.messages", ROOM),
    ("queue.buffering.max.kbytes", ROOM),
    ("linger.ms", "set `producer.linger`"),
    ("queue.buffering.max.ms", "set `producer.linger`"),
    ("compression.codec", "set `producer.compression`"),
    ("compression.type", "set `producer.compression`"),
    (
        "partitioner",
        "a key's partition is Java's (murmur2), so that all producers agree",
    ),
    ("partitioner_cb", CALLBACK),
    ("transactional.id", "the SDK names a chain's transactions"),
    (
        "transaction.timeout.ms",
        "it bounds what a chain takes into one transaction, which the SDK counts on",
    ),
    (
        "delivery.report.only.error",
        "a receipt needs its record's report",
    ),
    (
        "produce.offset.report",
        "a receipt needs its record's position",
    ),
    // Callbacks and events that rdkafka and the SDK use.
    ("statistics.interval.ms", "set `statistics_interval`"),
    ("enabled_events", CALLBACK),
    ("log.queue", CALLBACK),
    (
        "log_level",
        "it follows the filter of `tracing`, target `librdkafka`",
    ),
    ("opaque", CALLBACK),
    ("default_topic_conf", CALLBACK),
    ("interceptors", CALLBACK),
    ("error_cb", CALLBACK),
    ("throttle_cb", CALLBACK),
    ("stats_cb", CALLBACK),
    ("log_cb", CALLBACK),
    ("background_event_cb", CALLBACK),
    ("socket_cb", CALLBACK),
    ("connect_cb", CALLBACK),
    ("closesocket_cb", CALLBACK),
    ("open_cb", CALLBACK),
    ("resolve_cb", CALLBACK),
    ("consume_cb", CALLBACK),
    ("rebalance_cb", CALLBACK),
    ("offset_commit_cb", CALLBACK),
    ("dr_cb", CALLBACK),
    ("dr_msg_cb", CALLBACK),
    ("oauthbearer_token_refresh_cb", SASL),
];

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, "connect", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(settings: &[(&str, &str)]) -> Result<()> {
        let mut config = Config::default();
        for (key, value) in settings {
            config.librdkafka.insert((*key).into(), (*value).into());
        }
        config.validate()
    }

    #[test]
    fn every_key_of_the_table_is_refused_with_its_reason() {
        for (rule, reason) in REFUSED {
            let key = rule.replace('*', "x");
            let error = checked(&[(&key, "1")]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{key}");
            let expected = format!("librdkafka.{key} is refused: {reason}");
            assert_eq!(error.message(), expected);
        }
    }

    /// A key that librdkafka does not have is a typo, and rejects nothing.
    #[test]
    fn every_key_of_the_table_is_one_of_librdkafkas() {
        for (key, _) in REFUSED {
            if !key.ends_with('*') {
                let set = ClientConfig::new().set(*key, "x").create_native_config();
                let unknown = matches!(&set.err(), Some(KafkaError::ClientConfig(_, said, ..))
                    if said.contains("No such configuration property"));
                assert!(!unknown, "{key}");
            }
        }
    }

    #[test]
    fn aliases_are_refused_together_or_known_as_one() {
        for (alias, name) in [
            ("bootstrap.servers", "metadata.broker.list"),
            ("max.in.flight", "max.in.flight.requests.per.connection"),
            ("sasl.mechanism", "sasl.mechanisms"),
            ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
            ("linger.ms", "queue.buffering.max.ms"),
            ("retries", "message.send.max.retries"),
            ("compression.type", "compression.codec"),
            ("acks", "request.required.acks"),
            ("delivery.timeout.ms", "message.timeout.ms"),
            ("enable.auto.commit", "auto.commit.enable"),
        ] {
            let refused = refusal(alias).is_some() && refusal(name).is_some();
            assert!(refused || one_name(alias) == name, "{alias}");
        }
        let both = [
            ("max.partition.fetch.bytes", "1000"),
            ("fetch.message.max.bytes", "2000"),
        ];
        let error = checked(&both).unwrap_err();
        assert!(error.message().contains("the same setting"), "{error}");
    }

    #[test]
    fn what_the_sdk_does_not_own_passes() {
        checked(&[
            ("fetch.queue.backoff.ms", "5"),
            ("queued.max.messages.kbytes", "1024"),
            ("socket.keepalive.enable", "true"),
            ("client.rack", "eu-west-1a"),
            ("max.partition.fetch.bytes", "1000"),
            ("compression.level", "3"),
        ])
        .unwrap();
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_named() {
        for (key, value) in [
            ("no.such.key", "1"),
            ("fetch.queue.backoff.ms", "soon"),
            ("fetch.queue.backoff.ms", "-1"),
            ("broker.address.family", "v5"),
            ("client.rack", "a\0b"),
        ] {
            let error = checked(&[(key, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let named = error.message().starts_with(&format!("librdkafka.{key} "));
            assert!(named, "{error}");
        }
    }
}
