//! A TCP proxy between clients and a broker, for every protocol: it handles only connections and bytes.
//!
//! Each client has its own port, and faults of the network affect the connections of one client or
//! of all. A [`ProxyTarget`] receives the bytes: an address, or code that parses the protocol and injects
//! its own faults.
//!
//! ```no_run
//! # async fn example() {
//! use std::net::{Ipv4Addr, SocketAddr};
//! use std::time::Duration;
//!
//! use conformance::TcpProxy;
//!
//! let proxy = TcpProxy::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 6379)));
//! let port = proxy.port("a");
//! // A client connects to this port of 127.0.0.1. Then:
//! proxy.of("a").freeze(Duration::from_secs(5));
//! # }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

mod carry;
mod connection;
mod connections;
mod listener;
mod network;

pub use connections::Connections;

use listener::Listener;

/// The target of a proxy.
#[async_trait]
pub trait ProxyTarget: fmt::Debug + Send + Sync + 'static {
    /// Serves one connection of a client that connected to `port`, until either side ends. Dropped when
    /// the connection ends.
    async fn serve(&self, client: DuplexStream, port: u16);
}

/// Forwards the bytes unchanged. A connection that cannot be opened is closed on the client's side.
#[async_trait]
impl ProxyTarget for SocketAddr {
    async fn serve(&self, mut client: DuplexStream, _port: u16) {
        if let Ok(mut broker) = TcpStream::connect(self).await {
            // Only the faults may delay the data.
            drop(broker.set_nodelay(true));
            // If a side is gone, the other side detects it.
            drop(tokio::io::copy_bidirectional(&mut client, &mut broker).await);
        }
    }
}

/// Ports of 127.0.0.1 that forward to one target, one for each client. Dropping it closes them, and all
/// their connections.
#[derive(Debug)]
pub struct TcpProxy {
    target: Arc<dyn ProxyTarget>,
    /// Connections are served here, whoever opens the port, because a case may block the runtime of a client.
    runtime: Handle,
    listeners: Mutex<BTreeMap<String, Listener>>,
}

impl TcpProxy {
    /// Creates a proxy that serves its connections on the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(target: impl ProxyTarget) -> Self {
        Self::on(Arc::new(target), Handle::current())
    }

    fn on(target: Arc<dyn ProxyTarget>, runtime: Handle) -> Self {
        Self {
            target,
            runtime,
            listeners: Mutex::default(),
        }
    }

    /// Creates another proxy to the same target, with separate ports and faults: for cases that share
    /// a broker and must not share faults.
    pub fn sibling(&self) -> Self {
        Self::on(self.target.clone(), self.runtime.clone())
    }

    fn listeners(&self) -> MutexGuard<'_, BTreeMap<String, Listener>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the port of 127.0.0.1 for the client of this name. The first call opens it.
    ///
    /// # Panics
    /// If the system has no free port.
    pub fn port(&self, client: &str) -> u16 {
        let mut listeners = self.listeners();
        let listener = listeners
            .entry(client.to_owned())
            .or_insert_with(|| Listener::open(&self.runtime, self.target.clone()));
        listener.port()
    }

    /// Returns the address of [`port`](Self::port).
    ///
    /// # Panics
    /// If the system has no free port.
    pub fn address(&self, client: &str) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port(client)).into()
    }

    /// Returns the connections of one client, including those that it opens later.
    ///
    /// # Panics
    /// If the client has no [`port`](Self::port).
    pub fn of(&self, client: &str) -> Connections {
        let listeners = self.listeners();
        let listener = listeners.get(client);
        let listener = listener.unwrap_or_else(|| panic!("{client:?} does not use this proxy"));
        Connections::new([listener.network().clone()])
    }

    /// Returns the connections of all clients that have a port now, including those that they open
    /// later.
    pub fn all(&self) -> Connections {
        let listeners = self.listeners();
        Connections::new(
            listeners
                .values()
                .map(|listener| listener.network().clone()),
        )
    }
}
