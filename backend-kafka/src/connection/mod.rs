//! The clients of librdkafka. All are created here, from the settings.

mod bootstrap;
mod client_error;
pub(crate) mod context;
mod health;
mod library;
mod refused_logins;
mod request_client;
pub(crate) mod statistics;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind, Result};
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use tracing::Level;

use crate::config::passthrough;
use crate::config::{Config, Sasl};
use crate::connection::context::Context;
use crate::login::Login;
use crate::login::token::TokenSource;
use crate::{error, native};
pub(crate) use context::LastError;
pub(crate) use request_client::RequestClient;

/// The maximum number of cached request clients for groups. A program rarely needs more.
const MAX_REQUEST_CLIENTS: usize = 64;

/// The settings of a connection, and a client for its requests.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) config: Config,
    pub(crate) request_client: RequestClient,
    /// The request clients, by purpose and group.
    of_groups: Mutex<HashMap<(&'static str, String), Arc<RequestClient>>>,
    login: Arc<Login>,
}

impl Connection {
    pub(crate) fn open(config: Config, tokens: Option<Arc<dyn TokenSource>>) -> Result<Self> {
        config.validate()?;
        library::check(&config)?;
        let login = Arc::new(Login::open(&config.security, tokens)?);
        if let (Some(Sasl::Plain(_)), None) = (&config.security.sasl, &config.security.tls) {
            event!(
                warn,
                "millstream.kafka.login.unencrypted",
                "the password of security.sasl goes over the network in the clear: set security.tls"
            );
        }
        let context = Context::new("connect", Some(login.clone())).bootstrap(&config.brokers);
        let request_client = RequestClient::new(common(&config, &login), context);
        Ok(Self {
            config,
            request_client,
            of_groups: Mutex::default(),
            login,
        })
    }

    /// Returns the settings that every client has in common: brokers, login, name, and the passthrough keys.
    ///
    /// The passthrough keys are set already: use [`set_default`] for a default, or it replaces the user's value.
    pub(crate) fn common(&self) -> ClientConfig {
        common(&self.config, &self.login)
    }

    /// Like [`common`](Self::common), for a monitored client: a member or a producer.
    ///
    /// Statistics cost a client a few nanoseconds per sent record, for a histogram, and at each interval the formatting
    /// and parsing of about 700 bytes per partition.
    pub(crate) fn watched(&self) -> ClientConfig {
        let mut settings = self.common();
        let interval = self.config.statistics_interval.as_millis();
        settings.set("statistics.interval.ms", interval.to_string());
        settings
    }

    /// Creates a context for one client. `operation` is the verb in the error of a denied request.
    pub(crate) fn context(&self, operation: &'static str) -> Context {
        Context::new(operation, Some(self.login.clone())).bootstrap(&self.config.brokers)
    }

    /// Like [`context`](Self::context), for a client that continues after a refused login.
    pub(crate) fn lasting_context(&self, operation: &'static str) -> Context {
        let context = self.context(operation);
        context.outlast_refusals(self.config.request_timeout)
    }

    /// Records that a broker has accepted a login of this connection: from now on, a refusal may be temporary.
    pub(crate) fn on_logged_in(&self) {
        self.login.on_logged_in();
    }

    /// Returns a client that can request the offsets of groups. It is not a member of any group.
    ///
    /// It has a group because of a defect in librdkafka. It is the requested group, because a denial of a group is
    /// reported at once. The connection's own client has no group: a denial of one would be permanent for it.
    pub(crate) fn group_request_client(
        &self,
        operation: &'static str,
        group: &str,
    ) -> Arc<RequestClient> {
        let mut of_groups = self
            .of_groups
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let wanted = (operation, group.to_owned());
        if let Some(request_client) = of_groups.get(&wanted) {
            return request_client.clone();
        }
        if of_groups.len() >= MAX_REQUEST_CLIENTS {
            of_groups.clear();
        }
        let mut settings = self.common();
        settings.set("group.id", group);
        settings.set("enable.auto.commit", "false");
        let request_client = Arc::new(self.new_request_client(settings, operation));
        of_groups.insert(wanted, request_client.clone());
        request_client
    }

    /// Creates a client for requests to a group's coordinator. `settings` come from [`common`](Self::common).
    pub(crate) fn new_request_client(
        &self,
        settings: ClientConfig,
        operation: &'static str,
    ) -> RequestClient {
        RequestClient::new(settings, self.context(operation))
    }

    /// Returns a function that creates a client for administration requests.
    ///
    /// Call it, and drop the client, on a thread that may block: a token may have to be created, and the
    /// drop joins a thread of rdkafka's. The client is for one or a few requests, because nobody reads the events that
    /// librdkafka reports for it. So a refused login is not noticed (send a request with
    /// [`request_client`](Self::request_client) first), there are no log lines, and its token is not renewed.
    pub(crate) fn admin(
        &self,
        operation: &'static str,
    ) -> impl FnOnce() -> Result<AdminClient<Context>> + Send + 'static {
        let mut settings = self.common();
        // A broker that has just died may still be known as the controller, and a request for it waits until the
        // client refreshes its metadata: by default after 5 minutes.
        set_default(&mut settings, "topic.metadata.refresh.interval.ms", "1000");
        // Log lines would collect in a queue that nobody empties.
        settings.remove("debug");
        settings.set_log_level(RDKafkaLogLevel::Emerg);
        let (context, login) = (self.context(operation), self.login.clone());
        move || {
            let client = AdminClient::from_config_and_context(&settings, context)
                .map_err(|e| error::from(operation, e))?;
            if let Some(tokens) = login.tokens() {
                let token = tokens.wait().and_then(|()| tokens.kept());
                let set = token.and_then(|(_, token)| native::token::set(client.inner(), token));
                set.map_err(|said| Error::new(ErrorKind::Unauthenticated, operation, said))?;
            }
            Ok(client)
        }
    }
}

/// Sets a key unless the user has set it.
pub(crate) fn set_default(settings: &mut ClientConfig, key: &str, value: impl Into<String>) {
    if settings.get(key).is_none() {
        settings.set(key, value);
    }
}

fn common(config: &Config, login: &Login) -> ClientConfig {
    let mut common = ClientConfig::new();
    for (key, value) in &config.librdkafka {
        common.set(passthrough::one_name(key), value);
    }
    common.set("bootstrap.servers", config.brokers.join(","));
    common.set("client.id", &config.client_id);
    // The context filters the other lines: a line of this level may contain the reason why a broker is unreachable.
    common.set_log_level(
        match tracing::enabled!(target: "librdkafka", Level::DEBUG) {
            true => RDKafkaLogLevel::Debug,
            false => RDKafkaLogLevel::Info,
        },
    );
    login.apply(&mut common);
    common
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rdkafka::ClientContext;
    use rdkafka::config::FromClientConfigAndContext;
    use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

    use super::*;
    use crate::config::Credentials;

    /// Records librdkafka's log.
    #[derive(Default)]
    struct Reader(Mutex<Vec<String>>);

    impl ClientContext for Reader {
        fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
            let line = format!("{facility} {message}");
            self.0.lock().unwrap().push(line);
        }
    }

    impl ConsumerContext for Reader {}

    #[test]
    fn librdkafka_logs_no_secret_at_its_most_talkative() {
        let mut config = Config {
            // Nothing listens there. A failed connection is logged, too.
            brokers: vec!["127.0.0.1:1".into()],
            ..Config::default()
        };
        config.security.sasl = Some(Sasl::Plain(Credentials::new("user", "hush")));
        config.librdkafka.insert("debug".into(), "all".into());
        let login = Login::open(&config.security, None).unwrap();
        let mut settings = common(&config, &login);
        settings.set_log_level(RDKafkaLogLevel::Debug);
        let client = BaseConsumer::from_config_and_context(&settings, Reader::default()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            drop(client.poll(Duration::from_millis(100)));
            let lines = client.client().context().0.lock().unwrap();
            let has = |words: &str| lines.iter().any(|line| line.contains(words));
            assert!(!has("hush"), "{lines:?}");
            if has("sasl.password") && has("Connection refused") {
                break;
            }
            assert!(Instant::now() < deadline, "{lines:?}");
        }
        assert!(!format!("{settings:?} {login:?}").contains("hush"));
    }

    #[test]
    fn a_default_yields_to_what_passes_through() {
        let mut config = Config::default();
        let user = ("max.partition.fetch.bytes".into(), "1000".into());
        config.librdkafka.extend([user]);
        let login = Login::open(&config.security, None).unwrap();
        let mut settings = common(&config, &login);
        set_default(&mut settings, "fetch.message.max.bytes", "2000");
        set_default(&mut settings, "fetch.queue.backoff.ms", "5");
        assert_eq!(settings.get("fetch.message.max.bytes"), Some("1000"));
        assert_eq!(settings.get("fetch.queue.backoff.ms"), Some("5"));
    }

    #[test]
    fn a_refused_setting_does_not_show_its_value() {
        let mut settings = ClientConfig::new();
        settings.set("no.such.key", "hush");
        let refused = settings.create_native_config().err().unwrap();
        let error = error::from("connect", refused);
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        assert!(error.message().starts_with("no.such.key"), "{error}");
    }
}
