use millstream_core::ErrorKind;

use super::*;

fn parse(text: &str) -> Config {
    toml::from_str(text).unwrap()
}

/// Returns the message of the error for rejected settings.
fn refused(text: &str) -> String {
    let error = parse(text).validate().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
    error.message().to_owned()
}

#[test]
fn every_key_has_a_default_and_the_defaults_are_valid() {
    let config = parse("");
    assert_eq!(config, Config::default());
    config.validate().unwrap();
}

#[test]
fn what_is_written_out_is_read_back() {
    let mut config = Config {
        region: Some("eu-west-1".into()),
        endpoint: Some("http://127.0.0.1:4567".into()),
        ..Config::default()
    };
    config.consumer.retrieval = Retrieval::FanOut;
    config.consumer.fan_out_name = Some("one".into());
    config.producer.rate = Rate(500);
    config.leases.max_per_member = Some(3);
    config.streams.tags.insert("team".into(), "fleet".into());
    let text = toml::to_string(&config).unwrap();
    assert_eq!(parse(&text), config, "{text}");
}

#[test]
fn a_typo_is_told_with_the_keys_there_are() {
    for (text, typo, right) in [
        ("regoin = 'x'", "regoin", "region"),
        ("consumer.session = '1s'", "session", "session_timeout"),
        ("consumer.retrieval = 'efo'", "efo", "fan-out"),
        ("producer.aggregation = 'on'", "on", "kpl"),
        ("producer.headers = 'drop'", "drop", "envelope"),
        ("leases.name = 'x'", "name", "table"),
        ("streams.mode = 'auto'", "auto", "on-demand"),
        (
            "credentials = { access_key_id = 'a', secret = 'b' }",
            "secret",
            "secret_access_key",
        ),
    ] {
        let error = toml::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error.contains(&format!("`{typo}`")), "{error}");
        assert!(error.contains(&format!("`{right}`")), "{error}");
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
        ("client_id = 'a.b'", "client_id = 'a b'", "client_id"),
        ("region = 'x'", "region = ''", "region"),
        (
            "endpoint = 'https://localhost:1'",
            "endpoint = 'localhost:1'",
            "endpoint",
        ),
        (
            "endpoint = 'https://host'",
            "endpoint = 'https://user@host'",
            "endpoint",
        ),
        (
            "dynamodb_endpoint = 'https://localhost'",
            "dynamodb_endpoint = 'http://'",
            "dynamodb_endpoint",
        ),
        (
            "consumer.poll_interval = '200ms'",
            "consumer.poll_interval = '199ms'",
            "consumer.poll_interval",
        ),
        (
            "endpoint = 'http://a'\ndynamodb_endpoint = 'http://b'",
            "endpoint = 'http://a'",
            "endpoint",
        ),
        (
            "consumer.request_timeout = '1m'",
            "consumer.request_timeout = '2m'",
            "consumer.request_timeout",
        ),
        (
            "producer.request_timeout = '1s'",
            "producer.request_timeout = '0s'",
            "producer.request_timeout",
        ),
        (
            "consumer.poll_records = 10000",
            "consumer.poll_records = 10001",
            "consumer.poll_records",
        ),
        (
            "consumer.session_timeout = '1s'",
            "consumer.session_timeout = '500ms'",
            "consumer.session_timeout",
        ),
        (
            "producer.aggregate_bytes = 1024",
            "producer.aggregate_bytes = 1023",
            "producer.aggregate_bytes",
        ),
        (
            "producer.explicit_hash_key_header = 'x'",
            "producer.explicit_hash_key_header = ''",
            "producer.explicit_hash_key_header",
        ),
        (
            "producer.linger = '0s'",
            "producer.linger = '61s'",
            "producer.linger",
        ),
        (
            "producer.timeout = '1s'",
            "producer.timeout = '0s'",
            "producer.timeout",
        ),
        (
            "producer.requests = 1",
            "producer.requests = 0",
            "producer.requests",
        ),
        (
            "leases.table = 'app-{group}'",
            "leases.table = 'a/{group}'",
            "leases.table",
        ),
        (
            "leases.table = 'abc'",
            "leases.table = 'ab'",
            "leases.table",
        ),
        ("leases.region = 'x'", "leases.region = ''", "leases.region"),
        (
            "leases.profile = 'x'",
            "leases.profile = ''",
            "leases.profile",
        ),
        (
            "leases.role_arn = 'arn:aws:iam::123456789012:role/path/x'",
            "leases.role_arn = 'x'",
            "leases.role_arn",
        ),
        (
            "endpoint = 'http://a'\ndynamodb_endpoint = 'http://b'",
            "dynamodb_endpoint = 'http://b'",
            "dynamodb_endpoint",
        ),
        (
            "leases.max_per_member = 1",
            "leases.max_per_member = 0",
            "leases.max_per_member",
        ),
        (
            "leases.scan_interval = '100ms'",
            "leases.scan_interval = '99ms'",
            "leases.scan_interval",
        ),
        (
            "leases.audit_interval = '1s'",
            "leases.audit_interval = '2h'",
            "leases.audit_interval",
        ),
    ] {
        parse(good).validate().unwrap();
        let message = refused(bad);
        assert!(message.starts_with(key), "{message}");
    }
}

#[test]
fn a_rate_is_a_share() {
    for (text, rate) in [("0.5", 500), ("1", 1_000), ("10.0", 10_000), ("0.001", 1)] {
        let config = parse(&format!("producer.rate = {text}"));
        assert_eq!(config.producer.rate, Rate(rate));
    }
    for text in ["0", "-1.0", "10.1", "nan"] {
        let error = toml::from_str::<Config>(&format!("producer.rate = {text}"));
        assert!(error.unwrap_err().to_string().contains("0.001 to 10"));
    }
}

#[test]
fn secrets_are_not_shown() {
    let text = "credentials = { access_key_id = 'AKIA', secret_access_key = 'hush', session_token = 'hushed' }";
    let config = parse(text);
    config.validate().unwrap();
    let shown = format!("{config:?}{}", toml::to_string(&config).unwrap());
    assert!(!shown.contains("hush"), "{shown}");
    let message = refused("credentials = { access_key_id = 'AKIA', secret_access_key = '***' }");
    assert!(message.contains("secret_access_key"), "{message}");
    let message = refused("credentials = { access_key_id = '', secret_access_key = 'x' }");
    assert!(message.contains("access_key_id"), "{message}");
}
