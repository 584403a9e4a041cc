//! A broker with a listener for each authentication method, and no permissions granted.

use std::time::Duration;

use conformance::kafka::{Broker, Listener, Options};
use millstream_kafka::{Config, Credentials, Sasl, Tls};

use crate::pki::{Authority, Identity};

/// The listener with PLAIN and SCRAM over TLS.
pub(crate) const LOGIN: &str = "LOGIN";
/// The listener with TLS, where the client's certificate is the login.
pub(crate) const MUTUAL: &str = "MUTUAL";
/// The listener with OAUTHBEARER and unsigned tokens, unencrypted.
pub(crate) const TOKENS: &str = "TOKENS";

/// The suffix that, after the user's name, forms the password of every user.
pub(crate) const SECRET: &str = "-s3cr3t";

pub(crate) struct Secured {
    pub(crate) broker: Broker,
    pub(crate) authority: Authority,
    pub(crate) client: Identity,
}

impl Secured {
    pub(crate) async fn start() -> Self {
        let authority = Authority::new("authority of the test");
        let server = authority.identity("broker", &["127.0.0.1"]);
        let client = authority.identity("client", &[]);
        let store = format!("{}{}{}", server.key, server.certificate, authority.pem());
        const MODULES: &str = "org.apache.kafka.common.security";
        let plain = ["admin", "plain-user"]
            .map(|user| format!("user_{user}=\"{user}{SECRET}\""))
            .join(" ");
        let plain = format!("{MODULES}.plain.PlainLoginModule required {plain};");
        let scram = format!("{MODULES}.scram.ScramLoginModule required;");
        let bearer = format!(
            "{MODULES}.oauthbearer.OAuthBearerLoginModule required \
             unsecuredLoginStringClaim_sub=\"admin\";"
        );
        let mut options = Options::new()
            .file("/etc/millstream/server.pem", store)
            .file("/etc/millstream/authority.pem", authority.pem())
            .listener(Listener::new(LOGIN).protocol("SASL_SSL"))
            .listener(Listener::new(MUTUAL).protocol("SSL"))
            .listener(Listener::new(TOKENS).protocol("SASL_PLAINTEXT"))
            .property("super.users", "User:ANONYMOUS;User:admin;User:CN=client")
            .property(
                "authorizer.class.name",
                "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            );
        for listener in ["login", "mutual"] {
            for (key, value) in [
                ("keystore.type", "PEM"),
                ("keystore.location", "/etc/millstream/server.pem"),
                ("truststore.type", "PEM"),
                ("truststore.location", "/etc/millstream/authority.pem"),
            ] {
                options = options.property(&format!("listener.name.{listener}.ssl.{key}"), value);
            }
        }
        for (key, value) in [
            ("mutual.ssl.client.auth", "required"),
            (
                "login.sasl.enabled.mechanisms",
                "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            ),
            ("login.plain.sasl.jaas.config", &plain),
            ("login.scram-sha-256.sasl.jaas.config", &scram),
            ("login.scram-sha-512.sasl.jaas.config", &scram),
            ("tokens.sasl.enabled.mechanisms", "OAUTHBEARER"),
            ("tokens.oauthbearer.sasl.jaas.config", &bearer),
        ] {
            options = options.property(&format!("listener.name.{key}"), value);
        }
        Self {
            broker: options.start().await,
            authority,
            client,
        }
    }

    /// Creates a user who may log in by SCRAM, or changes the password of an existing one.
    pub(crate) async fn user(&self, name: &str, password: &str) {
        // The broker accepts one mechanism per request.
        let add = async |mechanism: &str| {
            let login = format!("{mechanism}=[password={password}]");
            let what = ["--alter", "--add-config", &login];
            let whose = ["--entity-type", "users", "--entity-name", name];
            let args = [&what[..], &whose[..]].concat();
            self.broker.tool("kafka-configs.sh", &args).await.ok();
        };
        tokio::join!(add("SCRAM-SHA-256"), add("SCRAM-SHA-512"));
    }

    pub(crate) async fn topic(&self, name: &str) {
        let args = ["--create", "--topic", name];
        self.broker.tool("kafka-topics.sh", &args).await.ok();
    }

    /// Sets the maximum size of batches of a topic.
    pub(crate) async fn limit_batches(&self, topic: &str, bytes: usize) {
        let limit = format!("max.message.bytes={bytes}");
        let what = ["--alter", "--add-config", &limit];
        let whose = ["--entity-type", "topics", "--entity-name", topic];
        let args = [&what[..], &whose[..]].concat();
        self.broker.tool("kafka-configs.sh", &args).await.ok();
    }

    /// Grants a user the permissions in the arguments of Kafka's tool.
    pub(crate) async fn allow(&self, user: &str, what: &[&str]) {
        let user = format!("User:{user}");
        let args = [&["--add", "--allow-principal", &user], what].concat();
        self.broker.tool("kafka-acls.sh", &args).await.ok();
    }

    pub(crate) fn tls(&self) -> Tls {
        let mut tls = Tls::default();
        tls.ca_pem = Some(self.authority.pem().to_owned());
        tls
    }

    pub(crate) fn config(&self, listener: &str) -> Config {
        let mut config = Config::default();
        config.brokers = vec![self.broker.bootstrap_of(listener)];
        config.request_timeout = Duration::from_secs(60);
        if listener != TOKENS {
            config.security.tls = Some(self.tls());
        }
        config
    }

    /// Returns the settings of a user that logs in on [`LOGIN`].
    pub(crate) fn login(&self, login: impl Fn(Credentials) -> Sasl, user: &str) -> Config {
        self.login_with(login, user, &format!("{user}{SECRET}"))
    }

    pub(crate) fn login_with(
        &self,
        login: impl Fn(Credentials) -> Sasl,
        user: &str,
        password: &str,
    ) -> Config {
        let mut config = self.config(LOGIN);
        config.security.sasl = Some(login(Credentials::new(user, password)));
        config
    }
}
