//! A broker behind a proxy that refuses logins, with clients that re-authenticate every other second.

use std::time::Duration;

use conformance::kafka::{Broker, Faults, Listener, Options, Proxy};
use millstream_kafka::{Config, Credentials, Sasl};

use crate::secured::{SECRET, TOKENS};

/// The listener with PLAIN and without encryption: the proxy reads the traffic.
const PLAIN: &str = "OPEN";

/// The interval at which a connection must re-authenticate.
pub(crate) const RELOGIN: Duration = Duration::from_secs(2);

pub(crate) struct Proxied {
    /// Kept alive for as long as this.
    _broker: Broker,
    pub(crate) faults: Faults,
    listener: &'static str,
    proxy: Proxy,
}

impl Proxied {
    /// Starts a broker with password logins.
    pub(crate) async fn start() -> Self {
        const MODULE: &str = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let login = format!("{MODULE} required user_admin=\"admin{SECRET}\";");
        let options = Options::new()
            // Clients repeat their logins on open connections when 90 % of that time is over.
            .property(
                "connections.max.reauth.ms",
                &RELOGIN.as_millis().to_string(),
            )
            .property("listener.name.open.sasl.enabled.mechanisms", "PLAIN")
            .property("listener.name.open.plain.sasl.jaas.config", &login);
        Self::with(options, PLAIN).await
    }

    /// Starts a broker with unsigned tokens.
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

    /// Returns the settings of a client by whose id the faults identify its logins.
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
