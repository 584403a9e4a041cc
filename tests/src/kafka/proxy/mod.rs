//! A proxy between clients and a broker. It parses requests and injects faults of the network and of the broker.
//!
//! The broker advertises the proxy's port, so that all connections go through it, including those that a client
//! opens later. Clients need no changes.

use std::io;
use std::net::Ipv4Addr;
use std::time::Instant;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

mod connection;
mod faults;
mod request;
mod request_log;
mod response;

pub use faults::Faults;
pub use request_log::RequestKind;

use request_log::RequestLog;

/// A port that forwards to a broker. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    broker: watch::Sender<Option<u16>>,
    request_log: RequestLog,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Takes a port of 127.0.0.1, before there is a broker, so that the broker can advertise it.
    /// Connections wait until [`forward_to`](Self::forward_to) says where they lead.
    ///
    /// Proxies of the brokers of one cluster share `faults`: a client has connections to all.
    pub async fn open(faults: &Faults) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (broker, leads_to) = watch::channel(None);
        let request_log = RequestLog::default();
        let serving = serve(listener, leads_to, faults.clone(), request_log.clone());
        let serving = tokio::spawn(serving);
        Ok(Self {
            port,
            broker,
            request_log,
            serving,
        })
    }

    /// Returns the port for clients.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets the broker's port on 127.0.0.1.
    pub fn forward_to(&self, port: u16) {
        self.broker.send_replace(Some(port));
    }

    /// Returns when clients with this id sent such requests to their group, in order.
    pub fn request_times(&self, client: &str, what: RequestKind) -> Vec<Instant> {
        self.request_log.times(client, what)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    listener: TcpListener,
    leads_to: watch::Receiver<Option<u16>>,
    faults: Faults,
    request_log: RequestLog,
) {
    // Ends every connection when this is aborted.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let (faults, request_log) = (faults.clone(), request_log.clone());
                    connections.spawn(handle_connection(client, leads_to.clone(), faults, request_log));
                }
                Err(error) => panic!("the proxy cannot accept connections: {error}"),
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
        }
    }
}

/// A connection that fails is closed on both sides, which is what its client must see.
async fn handle_connection(
    client: TcpStream,
    mut leads_to: watch::Receiver<Option<u16>>,
    faults: Faults,
    request_log: RequestLog,
) {
    let Ok(port) = leads_to.wait_for(Option::is_some).await.map(|port| *port) else {
        return;
    };
    let port = port.expect("it was waited for");
    if let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        connection::forward(client, broker, faults, request_log).await;
    }
}
