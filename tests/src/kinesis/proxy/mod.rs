//! A proxy between clients and the two services. It parses requests, and injects faults of AWS on top of those that
//! [`TcpProxy`] injects into connections.
//!
//! Clients use one address for both services, and need no changes.

use std::io;

use async_trait::async_trait;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;

mod exchange;
mod faults;
mod limits;
mod request;
mod response;
mod retention;
mod stats;
mod subscription;

pub use faults::Faults;
pub use request::Service;
pub use stats::{Read, RequestStats, Sent};

use crate::{ProxyTarget, TcpProxy};
use exchange::Exchange;
use request::Shard;

/// The client for all clients without a name.
const UNNAMED: &str = "";

/// Ports that forward to both services. Dropping it closes all their connections.
#[derive(Debug)]
pub struct Proxy {
    network: TcpProxy,
    exchange: Exchange,
}

impl Proxy {
    /// Creates a proxy in front of the services on these ports of 127.0.0.1.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(kinesis: u16, dynamodb: u16) -> Self {
        let exchange = Exchange::new(Faults::default(), kinesis, dynamodb);
        Self {
            network: TcpProxy::new(exchange.clone()),
            exchange,
        }
    }

    /// Returns the port on 127.0.0.1 for clients without a port of their own.
    pub fn port(&self) -> u16 {
        self.network.port(UNNAMED)
    }

    /// Returns the address of [`port`](Self::port), for clients of both services.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// Returns the ports of single clients, and the faults of connections.
    pub fn network(&self) -> &TcpProxy {
        &self.network
    }

    /// Returns the faults to inject into requests.
    pub fn faults(&self) -> &Faults {
        &self.exchange.faults
    }

    /// Returns the counters of requests and records.
    pub fn stats(&self) -> &RequestStats {
        &self.exchange.stats
    }

    /// Enforces the read limits of AWS on polling from now on. No emulator does.
    pub fn limit_reads(&self) {
        self.exchange.limits.enforce();
    }

    /// Hides all records of the shard up to this sequence number.
    pub fn trim(&self, stream: &str, shard: &str, last: &str) {
        let shard = Shard {
            stream: stream.to_owned(),
            id: shard.to_owned(),
        };
        self.exchange.retention.trim(shard, last.to_owned());
    }
}

/// A failed connection is closed, as its client must see it.
#[async_trait]
impl ProxyTarget for Exchange {
    async fn serve(&self, client: DuplexStream, _port: u16) {
        let service = service_fn(|request| {
            let response = self.clone().respond(request);
            async {
                // A request in transit arrives, even if its client has given up and is gone.
                let response = tokio::spawn(response).await;
                response.map_err(io::Error::other)?
            }
        });
        // So does a request whose client has closed the connection meanwhile.
        let mut http = http1::Builder::new();
        let http = http.half_close(true);
        drop(http.serve_connection(TokioIo::new(client), service).await);
    }
}
