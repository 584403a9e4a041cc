//! A broker that is farther away: a proxy of this process delays what its clients send and receive.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use conformance::kafka::{Broker, Listener, Options};
use conformance::{ProxyTarget, TcpProxy};
use tokio::io::DuplexStream;

/// The name of the clients' port.
const CLIENTS: &str = "clients";

/// One way to the broker, with a delay.
pub(crate) struct Far {
    listener: String,
    proxy: TcpProxy,
    port: Arc<OnceLock<u16>>,
}

#[derive(Debug, Clone)]
struct Target(Arc<OnceLock<u16>>);

#[async_trait]
impl ProxyTarget for Target {
    async fn serve(&self, client: DuplexStream, port: u16) {
        let broker = self.0.get().expect("the broker has started");
        let broker = SocketAddr::from((Ipv4Addr::LOCALHOST, *broker));
        broker.serve(client, port).await;
    }
}

impl Far {
    pub(crate) fn new(round_trip_ms: u32) -> Self {
        let port = Arc::new(OnceLock::new());
        let proxy = TcpProxy::new(Target(port.clone()));
        // It opens the port.
        proxy.port(CLIENTS);
        let each_way = Duration::from_millis(round_trip_ms.into()) / 2;
        proxy.all().delay(each_way);
        Self {
            listener: format!("FAR{round_trip_ms}"),
            proxy,
            port,
        }
    }

    pub(crate) fn listen(&self, options: Options) -> Options {
        let listener = Listener::new(&self.listener);
        options.listener(listener.advertised(self.proxy.port(CLIENTS)))
    }

    pub(crate) fn forward_to(&self, broker: &Broker) {
        let known = self.port.set(broker.port(&self.listener));
        known.expect("it is set once");
    }

    pub(crate) fn brokers(&self) -> String {
        self.proxy.address(CLIENTS).to_string()
    }
}
