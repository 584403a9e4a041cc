//! A proxy between clients and a broker. It parses requests, and injects faults of the broker on top of those
//! that [`TcpProxy`] injects into connections.
//!
//! The broker advertises a port of the proxy, so that all connections use it, including those that a client
//! opens later. A client with a port of its own gets that one in place of the advertised one. Clients need no
//! changes.

use std::net::Ipv4Addr;
use std::time::Instant;

use async_trait::async_trait;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::sync::watch;

mod connection;
mod faults;
mod ports;
mod request;
mod request_log;
mod response;

pub use faults::Faults;
pub use request_log::RequestKind;

use crate::{ProxyTarget, TcpProxy};
use connection::Layer;
use ports::PortChange;
use request_log::RequestLog;

/// The client whose port the broker advertises.
const ADVERTISED: &str = "";

/// Ports that forward to a broker. Dropping it closes all their connections.
#[derive(Debug)]
pub struct Proxy {
    network: TcpProxy,
    target: BrokerTarget,
}

impl Proxy {
    /// Opens a port of 127.0.0.1 before there is a broker, so that the broker can advertise it.
    /// Connections wait until [`forward_to`](Self::forward_to) sets their destination.
    ///
    /// Proxies of the brokers of one cluster share `faults`: a client has connections to all.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(faults: &Faults) -> Self {
        let target = BrokerTarget {
            leads_to: watch::channel(None).0,
            faults: faults.clone(),
            request_log: RequestLog::default(),
        };
        Self {
            network: TcpProxy::new(target.clone()),
            target,
        }
    }

    /// Returns the port for clients without a port of their own: the one to advertise.
    pub fn port(&self) -> u16 {
        self.network.port(ADVERTISED)
    }

    /// Sets the broker's port on 127.0.0.1.
    pub fn forward_to(&self, port: u16) {
        let leads_to = LeadsTo {
            port,
            advertised: self.port(),
        };
        self.target.leads_to.send_replace(Some(leads_to));
    }

    /// Returns the ports of clients, and the faults of their connections.
    pub fn network(&self) -> &TcpProxy {
        &self.network
    }

    /// Returns when clients with this id sent such requests to their group, in order.
    pub fn request_times(&self, client: &str, what: RequestKind) -> Vec<Instant> {
        self.target.request_log.times(client, what)
    }
}

/// The broker behind all ports. Clones share its faults.
#[derive(Debug, Clone)]
struct BrokerTarget {
    leads_to: watch::Sender<Option<LeadsTo>>,
    faults: Faults,
    request_log: RequestLog,
}

/// The broker's port, and the port that it advertises.
#[derive(Debug, Clone, Copy)]
struct LeadsTo {
    port: u16,
    advertised: u16,
}

/// A failed connection is closed on both sides, as its client must see it.
#[async_trait]
impl ProxyTarget for BrokerTarget {
    async fn serve(&self, client: DuplexStream, port: u16) {
        let mut leads_to = self.leads_to.subscribe();
        let leads_to = leads_to.wait_for(Option::is_some).await;
        let Ok(Some(broker)) = leads_to.map(|leads_to| *leads_to) else {
            return;
        };
        let layer = Layer {
            faults: self.faults.clone(),
            request_log: self.request_log.clone(),
            port_change: PortChange::new(broker.advertised, port),
        };
        if let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, broker.port)).await {
            connection::forward(client, broker, layer).await;
        }
    }
}
