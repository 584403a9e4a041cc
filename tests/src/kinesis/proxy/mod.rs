//! A proxy between clients and the two services. It parses requests, and injects faults of AWS on top of those that
//! [`TcpProxy`] injects into connections.
//!
//! Clients use one address for both services, and need no changes.

use std::path::Path;

use async_trait::async_trait;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};

mod distribution;
mod exchange;
mod faults;
mod https;
mod limits;
mod quotas;
mod request;
mod response;
mod retention;
mod stats;
mod subscription;
mod writes;

pub use faults::Faults;
pub use request::Service;
pub use stats::{Polls, Read, RequestStats, Sent};

use super::certificate::Certificate;
use crate::{ProxyTarget, TcpProxy};
use exchange::Exchange;
use https::Https;
use request::Shard;

/// The client for all clients without a name.
const UNNAMED: &str = "";

/// How clients reach the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Endpoint {
    /// Without TLS, by HTTP/1.1.
    #[default]
    Plain,
    /// As AWS serves them: with TLS, by HTTP/2 for clients that offer it, with latency, and with the quotas of an account.
    AwsLike {
        /// How many streams of HTTP/2 a connection has.
        streams: Streams,
    },
}

/// How many concurrent streams of HTTP/2 the service allows on a connection. AWS documents no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// 5, as [seen on Kinesis](https://github.com/apache/pekko-connectors/issues/830).
    Few,
    /// 128, as many servers allow: a client that shares connections has all its subscriptions on one.
    Many,
}

impl Streams {
    fn of_a_connection(self) -> u32 {
        match self {
            Self::Few => 5,
            Self::Many => 128,
        }
    }
}

/// Ports that forward to both services. Dropping it closes all their connections.
#[derive(Debug)]
pub struct Proxy {
    network: TcpProxy,
    few_streams: TcpProxy,
    many_streams: TcpProxy,
    certificate: Certificate,
    exchange: Exchange,
}

impl Proxy {
    /// Creates a proxy in front of the services on these ports of 127.0.0.1.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if no certificate can be created.
    pub fn open(kinesis: u16, dynamodb: u16) -> Self {
        let exchange = Exchange::new(Faults::default(), kinesis, dynamodb);
        let certificate = Certificate::new().expect("a certificate can be stored");
        let like_aws = exchange.clone().like_aws();
        let https = |streams: Streams| {
            let https = Https::new(like_aws.clone(), &certificate, streams.of_a_connection());
            TcpProxy::new(https.expect("the certificate is valid"))
        };
        Self {
            network: TcpProxy::new(exchange.clone()),
            few_streams: https(Streams::Few),
            many_streams: https(Streams::Many),
            certificate,
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
    pub fn network(&self, endpoint: Endpoint) -> &TcpProxy {
        match endpoint {
            Endpoint::Plain => &self.network,
            Endpoint::AwsLike { streams } => match streams {
                Streams::Few => &self.few_streams,
                Streams::Many => &self.many_streams,
            },
        }
    }

    /// Returns the certificate of [`Endpoint::AwsLike`], for clients that verify it. It is removed with this.
    pub fn certificate(&self) -> &Path {
        self.certificate.path()
    }

    /// Returns the faults to inject into requests.
    pub fn faults(&self) -> &Faults {
        &self.exchange.faults
    }

    /// Returns the counters of requests and records.
    pub fn stats(&self) -> &RequestStats {
        &self.exchange.stats
    }

    /// Enforces the read limits of AWS on polling of this stream from now on. No emulator does.
    pub fn limit_reads(&self, stream: &str) {
        self.exchange.limits.enforce(stream);
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
        http1(self.clone(), client).await;
    }
}

/// Serves HTTP/1.1.
async fn http1(exchange: Exchange, client: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
    let mut http = http1::Builder::new();
    // A request in transit arrives even if its client has closed the connection meanwhile.
    let http = http.half_close(true);
    let service = exchange.service();
    drop(http.serve_connection(TokioIo::new(client), service).await);
}
