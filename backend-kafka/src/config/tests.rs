use millstream_core::ErrorKind;

use super::*;

fn parse(text: &str) -> Config {
    toml::from_str(text).unwrap()
}

/// Returns the error message of an invalid configuration.
fn refused(text: &str) -> String {
    let error = parse(text).validate().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
    error.message().to_owned()
}

#[test]
fn every_key_has_a_default_and_the_defaults_are_valid() {
    let config = parse("");
    assert_eq!(config, Config::default());
    assert_eq!(config.brokers, ["127.0.0.1:9092"]);
    config.validate().unwrap();
}

#[test]
fn what_is_written_out_is_read_back() {
    let mut config = Config::default();
    config.consumer.instance_id = Some("one".into());
    config.topics.replication_factor = Some(3);
    config.librdkafka.insert("client.rack".into(), "a".into());
    config.security.tls = Some(Tls::default());
    config.security.sasl = Some(Sasl::MskIam(MskIam::new("eu-west-1")));
    let text = toml::to_string(&config).unwrap();
    assert_eq!(parse(&text), config, "{text}");
}

#[test]
fn a_typo_is_told_with_the_keys_there_are() {
    for (text, typo, right) in [
        ("brokerz = []", "brokerz", "brokers"),
        ("security.ssl = {}", "ssl", "tls"),
        ("security.tls.ca = 'x'", "ca", "ca_file"),
        (
            "security.sasl = { mechanism = 'scram-sha-1', username = 'u' }",
            "scram-sha-1",
            "scram-sha-256",
        ),
        (
            "security.sasl = { mechanism = 'plain', user = 'u' }",
            "user",
            "username",
        ),
        (
            "security.sasl = { mechanism = 'msk-iam', region = 'r', role = 'x' }",
            "role",
            "role_arn",
        ),
        (
            "security.sasl = { mechanism = 'oauthbearer', token = 'x' }",
            "token",
            "mechanism",
        ),
        ("consumer.protocol = 'classic'", "classic", "cooperative"),
    ] {
        let error = toml::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error.contains(&format!("`{typo}`")), "{error}");
        if typo != "token" {
            assert!(error.contains(&format!("`{right}`")), "{error}");
        }
    }
}

#[test]
fn bounds_are_as_documented() {
    for (good, bad, key) in [
        (
            "request_timeout = '1s'",
            "request_timeout = '999ms'",
            "request_timeout",
        ),
        (
            "request_timeout = '10m'",
            "request_timeout = '601s'",
            "request_timeout",
        ),
        (
            "statistics_interval = '0s'",
            "statistics_interval = '99ms'",
            "statistics_interval",
        ),
        (
            "statistics_interval = '100ms'",
            "statistics_interval = '1ms'",
            "statistics_interval",
        ),
        (
            "statistics_interval = '1day'",
            "statistics_interval = '25h'",
            "statistics_interval",
        ),
        (
            "consumer.session_timeout = '1s'",
            "consumer.session_timeout = '999ms'",
            "consumer.session_timeout",
        ),
        (
            "consumer.session_timeout = '1h'",
            "consumer.session_timeout = '3601s'",
            "consumer.session_timeout",
        ),
        (
            "consumer.heartbeat_interval = '10ms'",
            "consumer.heartbeat_interval = '9ms'",
            "consumer.heartbeat_interval",
        ),
        (
            "consumer = { session_timeout = '6s', heartbeat_interval = '2s' }",
            "consumer = { session_timeout = '6s', heartbeat_interval = '2001ms' }",
            "consumer.heartbeat_interval",
        ),
        (
            "consumer.rebalance_drain_timeout = '1day'",
            "consumer.rebalance_drain_timeout = '86401s'",
            "consumer.rebalance_drain_timeout",
        ),
        (
            "producer.linger = '0s'",
            "producer.linger = '901s'",
            "producer.linger",
        ),
        (
            "producer.timeout = '1s'",
            "producer.timeout = '999ms'",
            "producer.timeout",
        ),
        (
            "producer.timeout = '1day'",
            "producer.timeout = '25h'",
            "producer.timeout",
        ),
        (
            "topics.replication_factor = 32767",
            "topics.replication_factor = 32768",
            "topics.replication_factor",
        ),
        (
            "topics.replication_factor = 1",
            "topics.replication_factor = 0",
            "topics.replication_factor",
        ),
        ("client_id = 'a b'", "client_id = ''", "client_id"),
        (
            "consumer.instance_id = 'a'",
            "consumer.instance_id = ''",
            "consumer.instance_id",
        ),
    ] {
        let allowed = parse(good).validate();
        allowed.unwrap_or_else(|error| panic!("{good}: {error}"));
        let message = refused(bad);
        assert!(message.starts_with(key), "{bad}: {message}");
        assert!(message.contains("set it to"), "{bad}: {message}");
    }
}

#[test]
fn brokers_are_addresses() {
    for good in [
        "a:1",
        "kafka-1.example.com:65535",
        "[::1]:9092",
        "10.0.0.1:9092",
    ] {
        parse(&format!("brokers = ['{good}']")).validate().unwrap();
    }
    assert!(refused("brokers = []").starts_with("brokers is empty"));
    for bad in [
        "",
        "a",
        "a:",
        ":1",
        "a:0",
        "a:65536",
        "a:1,b:1",
        "::1:9092",
        "ssl://a:1",
        "a:1 ",
    ] {
        let message = refused(&format!("brokers = ['good:1', '{bad}']"));
        assert!(message.contains("host:port"), "{bad}: {message}");
        assert!(message.contains(bad), "{bad}: {message}");
    }
}

#[cfg(feature = "msk-iam")]
#[test]
fn half_a_login_is_refused() {
    const PEM: &str = "-----BEGIN X-----";
    for (security, named) in [
        (
            "sasl = { mechanism = 'plain', username = 'u' }",
            "password_file",
        ),
        (
            "sasl = { mechanism = 'plain', username = '', password = 'p' }",
            "username",
        ),
        (
            "sasl = { mechanism = 'plain', username = 'u', password = '' }",
            "password",
        ),
        (
            "sasl = { mechanism = 'plain', username = 'u', password = '***' }",
            "written out",
        ),
        (
            "sasl = { mechanism = 'plain', username = 'u', password = 'p', password_file = 'f' }",
            "both",
        ),
        ("sasl = { mechanism = 'msk-iam', region = '' }", "region"),
        (
            "sasl = { mechanism = 'msk-iam', region = 'EU West' }",
            "region",
        ),
        (
            "sasl = { mechanism = 'msk-iam', region = 'r', profile = 'p', role_arn = 'a' }",
            "both profile and role_arn",
        ),
        (
            "sasl = { mechanism = 'msk-iam', region = 'r', session_name = 's' }",
            "without role_arn",
        ),
        ("tls.certificate_file = 'f'", "key_file"),
        ("tls.key_file = 'f'", "certificate_file"),
        ("tls.key_password = 'p'", "without a key"),
        (
            &format!("tls = {{ ca_file = 'f', ca_pem = '{PEM}' }}"),
            "both ca_file and ca_pem",
        ),
        ("tls.ca_pem = '/etc/ca.pem'", "set ca_file"),
    ] {
        let message = refused(&format!("security.{security}"));
        assert!(message.starts_with("security."), "{security}: {message}");
        assert!(message.contains(named), "{security}: {message}");
    }
}

#[cfg(not(feature = "tls"))]
#[test]
fn what_was_not_built_is_refused_with_the_feature_to_build() {
    let user = "username = 'u', password = 'p'";
    for security in [
        "tls = {}".to_owned(),
        format!("sasl = {{ mechanism = 'scram-sha-256', {user} }}"),
        format!("sasl = {{ mechanism = 'scram-sha-512', {user} }}"),
        "sasl = { mechanism = 'oauthbearer' }".to_owned(),
    ] {
        let message = refused(&format!("security.{security}"));
        assert!(
            message.contains("build millstream-kafka with the feature `tls`"),
            "{message}"
        );
    }
    let message = refused("security.sasl = { mechanism = 'msk-iam', region = 'r' }");
    assert!(message.contains("the feature `msk-iam`"), "{message}");
    let plain = format!("security.sasl = {{ mechanism = 'plain', {user} }}");
    parse(&plain).validate().unwrap();
}

#[test]
fn secrets_are_not_shown() {
    let mut config = Config::default();
    let tls = Tls {
        key_pem: Some("hush-1".into()),
        key_password: Some("hush-2".into()),
        ..Tls::default()
    };
    config.security.tls = Some(tls);
    config.security.sasl = Some(Sasl::Plain(Credentials::new("u", "hush-3")));
    let refused = config.validate().unwrap_err();
    let written = toml::to_string(&config).unwrap();
    for shown in [
        format!("{config:?}"),
        format!("{config:#?}"),
        written.clone(),
        format!("{refused} {refused:?}"),
    ] {
        assert!(!shown.contains("hush"), "{shown}");
    }
    assert_eq!(written.matches("***").count(), 3, "{written}");
}
