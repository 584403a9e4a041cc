//! Settings from files and environment variables, as an application reads them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use millstream::{Error, ErrorKind, Result, Settings};

fn builder(variables: &[(&str, &str)]) -> millstream::SettingsBuilder {
    Settings::builder().env_from("MILLSTREAM", variables.iter().copied())
}

fn from_variables(variables: &[(&str, &str)]) -> Result<Settings> {
    builder(variables).build()
}

fn from_file(text: &str, variables: &[(&str, &str)]) -> Result<Settings> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleet.toml");
    std::fs::write(&file, text).unwrap();
    builder(variables).file(file).build()
}

fn memory(settings: Result<Settings>) -> millstream::memory::Config {
    match settings.unwrap() {
        Settings::Memory(config) => config,
        other => panic!("{} is not memory", other.backend()),
    }
}

fn refused(settings: Result<Settings>) -> Error {
    let error = settings.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    error
}

#[test]
fn nothing_said_is_memory_with_its_defaults() {
    let default = millstream::memory::Config::default();
    assert_eq!(memory(from_variables(&[])), default);
    assert_eq!(memory(from_file("", &[])), default);
    assert_eq!(memory(Ok(Settings::default())), default);
}

#[tokio::test]
async fn settings_connect() {
    let client = from_variables(&[("MILLSTREAM_BACKEND", "memory")]).unwrap();
    assert_eq!(client.connect().await.unwrap().backend(), "memory");
    let wrong = memory(from_variables(&[("MILLSTREAM_SESSION_TIMEOUT", "0s")]));
    let error = Settings::Memory(wrong).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_file_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleet.toml");
    std::fs::write(&file, "backend = 'memory'\nsession_timeout = '2s'").unwrap();
    let config = memory(Settings::load(&file));
    assert_eq!(config.session_timeout, Duration::from_secs(2));
    let missing = refused(Settings::load(folder.path().join("no-such-file")));
    assert!(missing.message().contains("no-such-file"), "{missing}");
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_defaults() {
    let text = "seed = 3\n[limits]\nkey_bytes = 3\nrecord_bytes = 3";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleet.toml");
    std::fs::write(&file, text).unwrap();
    let variables = [("MILLSTREAM_LIMITS__KEY_BYTES", "9")];
    let defaults = "seed = 1\nsync = true\nlimits.records_per_second = 1\nlimits.key_bytes = 1";
    let config = memory(builder(&variables).defaults(defaults).file(file).build());
    assert_eq!((config.seed, config.sync), (3, true));
    assert_eq!(
        (config.limits.key_bytes, config.limits.record_bytes),
        (Some(9), Some(3))
    );
    assert_eq!(config.limits.records_per_second, Some(1));
}

#[test]
fn defaults_are_for_their_own_backend() {
    let kafka = "backend = 'kafka'\nbrokers = ['127.0.0.1:1']";
    let memory_again = builder(&[("MILLSTREAM_BACKEND", "memory")])
        .defaults(kafka)
        .build();
    assert_eq!(memory(memory_again), millstream::memory::Config::default());
    let kept = builder(&[])
        .defaults("backend = 'memory'\nseed = 5")
        .build();
    assert_eq!(memory(kept).seed, 5);
}

#[test]
fn an_unknown_backend_lists_the_known_ones() {
    for error in [
        refused(from_file("\nbackend = 'memry'", &[])),
        refused(from_file("", &[("MILLSTREAM_BACKEND", "memry")])),
    ] {
        for word in ["`memry`", "`memory`", "`kafka`", "`kinesis`"] {
            assert!(error.message().contains(word), "{error}");
        }
    }
    let error = refused(from_file("\nbackend = 'memry'", &[]));
    assert!(error.message().contains("fleet.toml, line 2"), "{error}");
    let error = refused(from_file("backend = ['memory']\n", &[]));
    assert!(error.message().contains("memory"), "{error}");
}

#[test]
fn a_mistyped_key_lists_the_valid_ones() {
    let error = refused(from_file("\nsesion_timeout = '3s'", &[]));
    for word in [
        "`sesion_timeout`",
        "`session_timeout`",
        "`limits`",
        "fleet.toml, line 2",
    ] {
        assert!(error.message().contains(word), "{error}");
    }
    let error = refused(from_variables(&[("MILLSTREAM_LIMITS__KEY", "3")]));
    for word in ["`limits`", "`key_bytes`", "MILLSTREAM_LIMITS__KEY"] {
        assert!(error.message().contains(word), "{error}");
    }
}

#[test]
fn a_variable_that_names_nothing_is_refused() {
    for name in [
        "MILLSTREAM_",
        "MILLSTREAM___A",
        "MILLSTREAM_SEED__A",
        "MILLSTREAM_SEED__",
    ] {
        let error = refused(from_file("seed = 3", &[(name, "1")]));
        assert!(error.message().contains(name), "{error}");
    }
    let error = refused(Settings::from_env(""));
    assert!(error.message().contains("prefix"), "{error}");
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_are_ignored() {
    let links = [
        ("MILLSTREAM_PORT", "tcp://10.0.0.11:8080"),
        ("MILLSTREAM_SERVICE_HOST", "10.0.0.11"),
        ("MILLSTREAM_SERVICE_PORT", "8080"),
        ("MILLSTREAM_SERVICE_PORT_HTTP", "8080"),
        ("MILLSTREAM_PORT_8080_TCP", "tcp://10.0.0.11:8080"),
        ("MILLSTREAM_PORT_8080_TCP_PROTO", "tcp"),
        ("MILLSTREAM_PORT_8080_TCP_PORT", "8080"),
        ("MILLSTREAM_PORT_8080_TCP_ADDR", "10.0.0.11"),
        ("MILLSTREAM_PORT_53_UDP", "udp://10.0.0.11:53"),
        ("MILLSTREAM_UI_PORT", "tcp://10.0.0.12:80"),
        ("MILLSTREAM_UI_SERVICE_HOST", "10.0.0.12"),
        ("MILLSTREAM_UI_SERVICE_PORT_HTTP", "80"),
        ("MILLSTREAM_UI_PORT_80_TCP_ADDR", "10.0.0.12"),
        ("MILLSTREAM_SEED", "4"),
    ];
    assert_eq!(memory(from_variables(&links)).seed, 4);
    assert_eq!(Warnings::during(|| from_variables(&links)), links.len() - 1);
    // What only looks like one is a typo.
    for (name, value) in [("MILLSTREAM_PORT", "9092"), ("MILLSTREAM_PORTS", "tcp://a")] {
        let error = refused(from_variables(&[(name, value)]));
        assert!(error.message().contains(name), "{error}");
    }
}

#[test]
fn a_prefix_may_end_in_an_underscore_and_be_any() {
    let builder = Settings::builder().env_from("ORDERS_STREAM_", [("ORDERS_STREAM_SEED", "4")]);
    assert_eq!(memory(builder.build()).seed, 4);
}

#[cfg(unix)]
#[test]
fn only_variables_of_the_prefix_must_be_utf_8() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    let bytes = || OsString::from_vec(vec![0xff, 0xfe]);
    let read = |variables: Vec<(OsString, OsString)>| {
        Settings::builder()
            .env_from("MILLSTREAM", variables)
            .build()
    };
    let elsewhere = vec![("LS_COLORS".into(), bytes()), (bytes(), "x".into())];
    assert_eq!(
        memory(read(elsewhere)),
        millstream::memory::Config::default()
    );
    let error = refused(read(vec![("MILLSTREAM_PERSIST".into(), bytes())]));
    assert!(error.message().contains("MILLSTREAM_PERSIST"), "{error}");
    let mut name = OsString::from("MILLSTREAM_");
    name.push(bytes());
    refused(read(vec![(name, "x".into())]));
}

#[test]
fn settings_inside_of_an_applications_own_are_read() {
    #[derive(Debug, serde::Deserialize)]
    struct App {
        streams: Settings,
    }
    let read = |text: &str| toml::from_str::<App>(text);
    let app = read("[streams]\nbackend = 'memory'\nsession_timeout = '3s'\nseed = 2").unwrap();
    let config = memory(Ok(app.streams));
    assert_eq!(
        (config.session_timeout, config.seed),
        (Duration::from_secs(3), 2)
    );
    let error = read("[streams]\nsesion_timeout = '3s'")
        .unwrap_err()
        .to_string();
    assert!(error.contains("`session_timeout`"), "{error}");
}

#[test]
fn an_error_within_an_applications_own_settings_shows_no_value() {
    const SECRET: &str = "hunter2";
    #[derive(Debug, serde::Deserialize)]
    struct App {
        streams: millstream::SettingsBuilder,
    }
    #[derive(Debug, serde::Deserialize)]
    struct Direct {
        #[serde(rename = "streams")]
        _streams: Settings,
    }
    for (wrong, key) in [
        (
            format!("streams = {{ seed = 3, passwort = '{SECRET}' }}"),
            "`passwort`",
        ),
        (format!("streams = {{ seed = '{SECRET}' }}"), "`seed`"),
        (format!("streams.seed = '{SECRET}'"), "`seed`"),
        (format!("streams.limits.password = '{SECRET}'"), "`limits`"),
        (format!("streams.backend = '{SECRET}'"), "`backend`"),
        (format!("streams = '{SECRET}'"), "a table"),
    ] {
        let app: App = toml::from_str(&wrong).unwrap();
        assert!(!format!("{app:?}").contains(SECRET), "{app:?}");
        let error = refused(app.streams.build());
        assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
        assert!(error.message().contains(key), "{error}");
        // The text of this one has the source line, which only the application can leave out.
        let error = toml::from_str::<Direct>(&wrong).unwrap_err();
        assert!(!error.message().contains(SECRET), "{}", error.message());
        assert!(error.message().contains(key), "{}", error.message());
    }
}

#[test]
fn a_table_of_an_applications_own_settings_lies_between_defaults_and_environment() {
    let read = |text: &str| toml::from_str::<millstream::SettingsBuilder>(text).unwrap();
    let builder = read("seed = 2\nlimits.key_bytes = 2")
        .defaults("seed = 1\nsync = true")
        .env_from("APP", [("APP_LIMITS__KEY_BYTES", "3")]);
    let config = memory(builder.build());
    assert_eq!(
        (config.seed, config.sync, config.limits.key_bytes),
        (2, true, Some(3))
    );
    let other = read("backend = 'memory'").defaults("backend = 'kafka'\nbrokers = ['a:1']");
    assert_eq!(memory(other.build()), millstream::memory::Config::default());
}

#[cfg(not(all(feature = "kafka", feature = "kinesis")))]
#[test]
fn a_backend_that_is_not_built_names_the_feature() {
    for (backend, is_built) in [
        ("kafka", cfg!(feature = "kafka")),
        ("kinesis", cfg!(feature = "kinesis")),
    ] {
        if !is_built {
            let error = from_variables(&[("MILLSTREAM_BACKEND", backend)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let feature = format!("features = [\"{backend}\"]");
            assert!(error.message().contains(&feature), "{error}");
        }
    }
}

#[cfg(feature = "kafka")]
mod kafka {
    use millstream::kafka::{Credentials, Sasl};

    use super::*;

    fn kafka(settings: Result<Settings>) -> millstream::kafka::Config {
        match settings.unwrap() {
            Settings::Kafka(config) => config,
            other => panic!("{} is not kafka", other.backend()),
        }
    }

    const TEXTS: [&str; 9] = [
        "123456", "1e5", "true", "0x1F", "[1]", "nan", "-1", "1.50", "inf",
    ];

    #[test]
    fn a_password_is_a_text_whatever_it_looks_like() {
        for text in TEXTS
            .into_iter()
            .chain(["'quoted'", "\"quoted\"", "\"", "a,b", "{a = 1}"])
        {
            let config = kafka(from_variables(&[
                ("MILLSTREAM_BACKEND", "kafka"),
                ("MILLSTREAM_SECURITY__SASL__MECHANISM", "plain"),
                ("MILLSTREAM_SECURITY__SASL__USERNAME", text),
                ("MILLSTREAM_SECURITY__SASL__PASSWORD", text),
                ("MILLSTREAM_SECURITY__TLS__KEY_PASSWORD", text),
            ]));
            let expected = Sasl::Plain(Credentials::new(text, text));
            assert_eq!(config.security.sasl, Some(expected));
            assert_eq!(config.security.tls.unwrap().key_password, Some(text.into()));
        }
        for text in TEXTS {
            let file = format!(
                "backend = 'kafka'\n[security.tls]\nkey_password = {text}\n\
                 [security.sasl]\nmechanism = 'plain'\nusername = 'u'\npassword = {text}"
            );
            let config = kafka(from_file(&file, &[]));
            let expected = Sasl::Plain(Credentials::new("u", text));
            assert_eq!(config.security.sasl, Some(expected));
            assert_eq!(config.security.tls.unwrap().key_password, Some(text.into()));
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        const SECRET: &str = "hunter2";
        for wrong in [
            format!("password = \"{SECRET}"),
            format!("password = {SECRET}"),
            format!("passwort = \"{SECRET}\""),
            format!("password = {{ a = \"{SECRET}\" }}"),
            format!("region = \"{SECRET}\""),
        ] {
            let file = format!(
                "backend = 'kafka'\n[security.sasl]\nmechanism = 'plain'\nusername = 'u'\n{wrong}"
            );
            let error = refused(from_file(&file, &[]));
            assert!(!format!("{error:?}").contains(SECRET), "{error}");
            assert!(error.message().contains("fleet.toml, line "), "{error}");
            assert!(error.message().contains("sasl"), "{error}");
        }
        let config = from_variables(&[
            ("MILLSTREAM_BACKEND", "kafka"),
            (
                "MILLSTREAM_SECURITY__SASL",
                &format!("{{mechanism = 'plain', username = 'u', password = '{SECRET}'}}"),
            ),
        ]);
        assert!(!format!("{:?}", config.unwrap()).contains(SECRET));
    }

    #[test]
    fn brokers_take_one_address_or_a_list() {
        let brokers = |text| {
            let variables = [
                ("MILLSTREAM_BACKEND", "kafka"),
                ("MILLSTREAM_BROKERS", text),
            ];
            kafka(from_variables(&variables)).brokers
        };
        assert_eq!(brokers("kafka:9092"), ["kafka:9092"]);
        assert_eq!(brokers("a:1,b:2"), ["a:1", "b:2"]);
        assert_eq!(brokers("[\"a:1\", \"b:2\"]"), ["a:1", "b:2"]);
    }

    #[test]
    fn wrong_settings_are_shown_with_key_and_line() {
        let error = refused(from_file(
            "backend = 'kafka'\n\n[consumer]\nsession_timeout = '10'",
            &[],
        ));
        for word in ["`consumer.session_timeout`", "line 4", "\"10s\""] {
            assert!(error.message().contains(word), "{error}");
        }
        let error = refused(from_file(
            "backend = 'kafka'\n[security.sasl]\nmechanism = 'plain'\nusernam = 'u'",
            &[],
        ));
        for word in ["`security.sasl`", "line 4", "`usernam`", "`username`"] {
            assert!(error.message().contains(word), "{error}");
        }
    }
}

/// Counts warnings, which name a variable and show no value.
#[derive(Clone, Default)]
struct Warnings(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl Warnings {
    fn during<T>(call: impl FnOnce() -> T) -> usize {
        let warnings = Self::default();
        // While there is one subscriber only, `tracing` asks the thread that is first at an event
        // whether anybody listens, and that may be the thread of another test.
        let _other = tracing::Dispatch::new(warnings.clone());
        tracing::subscriber::with_default(warnings.clone(), call);
        let seen = warnings.0.lock().unwrap();
        for fields in &*seen {
            assert!(fields.contains("variable=\"MILLSTREAM_"), "{fields}");
            assert!(!fields.contains("10.0.0.1"), "{fields}");
        }
        seen.len()
    }
}

impl tracing::field::Visit for Warnings {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let mut seen = self.0.lock().unwrap();
        let fields = seen.last_mut().unwrap();
        fields.push_str(&format!("{field}={value:?} "));
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().unwrap().push(String::new());
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
