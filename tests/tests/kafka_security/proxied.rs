//! A broker behind a proxy that refuses logins, with clients that log in again every other second.

use std::time::Duration;

use conformance::kafka::{Broker, Faults, Listener, Options, Proxy};
use millstream_kafka::{Config, Credentials, Sasl};

use crate::secured::{SECRET, TOKENS};

/// PLAIN without encryption: the proxy reads what passes.
const PLAIN: &str = "OPEN";

/// How often a connection must log in again.
pub(crate) const RELOGIN: Duration = Duration::from_secs(2);

pub(crate) struct Proxied {
    /// Runs as long as this.
    _broker: Broker,
    pub(crate) faults: Faults,
    listener: &'static str,
    proxy: Proxy,
}

impl Proxied {
    /// With passwords.
    pub(crate) async fn start() -> Self {
        const MODULE: &str = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let login = format!("{MODULE} required user_admin=\"admin{SECRET}\";");
        let options = Options::new()
            // Clients repeat their logins on connections that they have when 90 % of that is over.
            .property(
                "connections.max.reauth.ms",
                &RELOGIN.as_millis().to_string(),
            )
            .property("listener.name.open.sasl.enabled.mechanisms", "PLAIN")
            .property("listener.name.open.plain.sasl.jaas.config", &login);
        Self::with(options, PLAIN).await
    }

    /// With tokens that nobody signed.
    pub(crate) async fn with_tokens() -> Self {
        const MODULE: &str = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule";
        let login = format!("{MODULE} required unsecuredLoginStringClaim_sub=\"admin\";");
        let options = Options::new()
            .property(
                "listener.name.tokens.sasl.enabled.mechanisms",
                "OAUTHBEARER",
            )
            .property("listener.name.tokens.oauthbearer.sasl.jaas.config", &login);
        Self::with(options, TOKENS).await
    }

    async fn with(options: Options, listener: &'static str) -> Self {
        let faults = Faults::new();
        let proxy = Proxy::open(&faults);
        let sasl = Listener::new(listener).protocol("SASL_PLAINTEXT");
        let sasl = sasl.advertised(proxy.port());
        let broker = options.listener(sasl).start().await;
        proxy.forward_to(broker.port(listener));
        Self {
            _broker: broker,
            faults,
            listener,
            proxy,
        }
    }

    /// A client by whose id the faults know its logins.
    pub(crate) fn config(&self, id: &str) -> Config {
        let mut config = Config::default();
        config.brokers = vec![format!("127.0.0.1:{}", self.proxy.port())];
        config.client_id = id.to_owned();
        config.security.sasl = Some(match self.listener {
            TOKENS => Sasl::Oauthbearer {},
            _ => Sasl::Plain(Credentials::new("admin", format!("admin{SECRET}"))),
        });
        config.consumer.heartbeat_interval = Some(Duration::from_millis(200));
        config
    }
}
