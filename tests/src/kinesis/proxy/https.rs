//! Serves TLS and HTTP/2, as AWS does.

use std::fmt;
use std::io;

use async_trait::async_trait;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::DuplexStream;
use tokio_rustls::TlsAcceptor;

use super::exchange::Exchange;
use super::http1;
use crate::ProxyTarget;
use crate::kinesis::certificate::Certificate;

/// A port with TLS and, for clients that offer it, HTTP/2.
pub(super) struct Https {
    exchange: Exchange,
    acceptor: TlsAcceptor,
    /// The maximum number of concurrent streams of a connection.
    streams: u32,
}

impl Https {
    pub(super) fn new(
        exchange: Exchange,
        certificate: &Certificate,
        streams: u32,
    ) -> io::Result<Self> {
        Ok(Self {
            exchange,
            acceptor: certificate.acceptor(&[b"h2", b"http/1.1"])?,
            streams,
        })
    }
}

impl fmt::Debug for Https {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Https").finish_non_exhaustive()
    }
}

/// A failed connection is closed, as its client must see it.
#[async_trait]
impl ProxyTarget for Https {
    async fn serve(&self, client: DuplexStream, _port: u16) {
        let Ok(client) = self.acceptor.accept(client).await else {
            return;
        };
        if client.get_ref().1.alpn_protocol() != Some(b"h2") {
            return http1(self.exchange.clone(), client).await;
        }
        let service = self.exchange.clone().service();
        let mut http = http2::Builder::new(TokioExecutor::new());
        let http = http.max_concurrent_streams(self.streams);
        drop(http.serve_connection(TokioIo::new(client), service).await);
    }
}
