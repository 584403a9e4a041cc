use std::time::Instant;

use millstream_core::{Partition, driver};
use tokio::sync::OnceCell;

use super::proxy::{Faults, Proxy, RequestKind};
use super::{Broker, Listener, Options, record_limit, retention, steal};
use crate::TcpProxy;

/// A broker behind a proxy. All connections of a client that uses [`bootstrap`](Self::bootstrap) go through the
/// proxy.
#[derive(Debug)]
pub struct Testbed {
    broker: Broker,
    proxy: Proxy,
    faults: Faults,
    /// The limits of every stream that is created like those of the cases.
    pub(super) limits: OnceCell<driver::StreamLimits>,
}

impl Testbed {
    /// Starts the broker and the proxy.
    pub async fn start(options: Options) -> Self {
        let faults = Faults::new();
        let proxy = Proxy::open(&faults);
        let listener = Listener::new(Listener::CLIENT).advertised(proxy.port());
        let broker = options.listener(listener).start().await;
        proxy.forward_to(broker.port(Listener::CLIENT));
        Self {
            broker,
            proxy,
            faults,
            limits: OnceCell::new(),
        }
    }

    /// Returns the value for a client's `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.proxy.port())
    }

    /// Returns the ports of single clients, and the faults of connections.
    pub fn network(&self) -> &TcpProxy {
        self.proxy.network()
    }

    /// Returns the broker.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Returns the faults to inject into requests.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Returns when clients with this id sent such requests to their group, in order.
    pub fn request_times(&self, client: &str, what: RequestKind) -> Vec<Instant> {
        self.proxy.request_times(client, what)
    }

    /// Evicts the owner of a partition from its group.
    ///
    /// # Panics
    /// If it has no owner for 20 s.
    pub async fn steal(&self, group: &str, partition: &Partition) {
        let index = partition.id().parse().expect("partitions have numbers");
        steal::steal(self.port(), group, partition.stream(), index).await;
    }

    /// Removes all records of the topic.
    ///
    /// # Panics
    /// If the broker returns an error.
    pub async fn trim(&self, topic: &str) {
        let trimmed = retention::trim(self.port(), topic).await;
        trimmed.unwrap_or_else(|error| panic!("the records of {topic} stay: {error}"));
    }

    /// Sets the maximum size of a record or batch of a topic. `None` sets the broker's default.
    ///
    /// # Panics
    /// If the broker returns an error.
    pub async fn limit_records(&self, topic: &str, bytes: Option<usize>) {
        let limited = record_limit::limit_records(self.port(), topic, bytes).await;
        limited.unwrap_or_else(|error| panic!("the limit of {topic} stays: {error}"));
    }

    /// Kills the broker, and starts it again with its data.
    pub async fn restart(&self) {
        self.broker.kill().await;
        self.broker.start().await;
    }

    /// Bypasses the proxy: fault injection must not be subject to faults.
    fn port(&self) -> u16 {
        self.broker.port(Listener::CLIENT)
    }
}
