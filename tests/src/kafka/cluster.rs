use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use futures_util::future::join_all;

use super::broker::{CONTROLLER_PORT, Membership};
use super::{Broker, Listener, Options};
use crate::containers;

/// Three brokers, each also a controller, so that one may fail and the other two continue: topics have
/// three replicas by default, and a record is acknowledged when two have it.
#[derive(Debug)]
pub struct Cluster {
    brokers: Vec<Broker>,
    network: String,
}

impl Cluster {
    /// The number of brokers.
    pub const SIZE: usize = 3;

    /// Starts the brokers at once, each with the options for its number in `0..SIZE`, and returns
    /// when all know each other.
    pub async fn start(options: impl Fn(usize) -> Options) -> Self {
        let network = unique("network");
        let hosts: Vec<_> = (0..Self::SIZE).map(|_| unique("broker")).collect();
        let voters = hosts.iter().enumerate();
        let voters = voters.map(|(n, host)| format!("{n}@{host}:{CONTROLLER_PORT}"));
        let voters: Vec<_> = voters.collect();

        let starts = hosts.iter().enumerate().map(|(n, host)| {
            let membership = Membership {
                node: n,
                host: host.clone(),
                network: Some(network.clone()),
                voters: voters.join(","),
                nodes: Self::SIZE,
            };
            let options = replicated(options(n));
            Broker::create(options, membership)
        });
        let brokers = join_all(starts).await;
        let cluster = Self { brokers, network };
        join_all(cluster.brokers.iter().map(Broker::settled)).await;
        cluster
    }

    /// Returns the value for a client's `bootstrap.servers`, on the plaintext listeners.
    pub fn bootstrap(&self) -> String {
        self.bootstrap_of(Listener::CLIENT)
    }

    /// Returns the value for a client's `bootstrap.servers`, on a listener of the options.
    pub fn bootstrap_of(&self, listener: &str) -> String {
        let all = self.brokers.iter();
        let all: Vec<_> = all.map(|broker| broker.bootstrap_of(listener)).collect();
        all.join(",")
    }

    /// Returns one of the brokers. `kafka-topics.sh` and the other tools use the same number.
    pub fn broker(&self, n: usize) -> &Broker {
        &self.brokers[n]
    }

    /// Kills a broker, like [`Broker::kill`].
    pub async fn kill(&self, n: usize) {
        self.broker(n).kill().await;
    }

    /// Starts a broker again, like [`Broker::start`]. It may still be behind the others then: see
    /// [`settled`](Self::settled).
    pub async fn restart(&self, n: usize) {
        self.broker(n).start().await;
    }

    /// Cuts a broker off from the others and from clients, while it continues to run.
    pub async fn disconnect(&self, n: usize) {
        let id = self.broker(n).id();
        containers::docker(&["network", "disconnect", &self.network, id]).await;
    }

    /// Reconnects a broker that was cut off, and returns when it serves.
    pub async fn reconnect(&self, n: usize) {
        let id = self.broker(n).id();
        containers::docker(&["network", "connect", &self.network, id]).await;
        self.broker(n).serves().await;
    }

    /// Waits until the others have detected that a broker is gone, and continue without it.
    pub async fn goes_on_without(&self, n: usize) {
        let others = self.brokers.iter().enumerate();
        let others = others.filter(|(other, _)| *other != n);
        join_all(others.map(|(_, broker)| broker.misses(n))).await;
    }

    /// Waits until every broker serves, and every replica has all that its leader has.
    pub async fn settled(&self) {
        join_all(self.brokers.iter().map(Broker::settled)).await;
    }
}

/// Returns a unique name for a container or a network. `tests/containers/down` finds the owner in it.
fn unique(kind: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Relaxed);
    format!("millstream-{}-{kind}-{count}", containers::owner())
}

fn replicated(options: Options) -> Options {
    options
        .property("default.replication.factor", "3")
        .property("min.insync.replicas", "2")
        .property("offsets.topic.replication.factor", "3")
        .property("transaction.state.log.replication.factor", "3")
        .property("transaction.state.log.min.isr", "2")
}
