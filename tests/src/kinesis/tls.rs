//! Terminates TLS in front of a plain port, for clients that require TLS.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use async_trait::async_trait;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::certificate::Certificate;
use crate::{ProxyTarget, TcpProxy};

/// A TLS port that forwards to a plain one. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Tls {
    network: TcpProxy,
    certificate: Certificate,
}

impl Tls {
    /// Opens a port on 127.0.0.1 that forwards to this one.
    ///
    /// # Errors
    /// If the certificate cannot be created or stored.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(to: u16) -> io::Result<Self> {
        let certificate = Certificate::new()?;
        let acceptor = certificate.acceptor(&[])?;
        let network = TcpProxy::new(PlainPort { acceptor, port: to });
        Ok(Self {
            network,
            certificate,
        })
    }

    /// Returns the address for clients.
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.network.address(""))
    }

    /// Returns the file with the certificate, for clients that verify it. It is removed with this.
    pub fn certificate(&self) -> &Path {
        self.certificate.path()
    }
}

/// A plain port behind TLS.
struct PlainPort {
    acceptor: TlsAcceptor,
    port: u16,
}

impl fmt::Debug for PlainPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainPort")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// A failed connection is closed, as its client must see it.
#[async_trait]
impl ProxyTarget for PlainPort {
    async fn serve(&self, client: DuplexStream, _port: u16) {
        let served = async {
            let mut client = self.acceptor.accept(client).await?;
            let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
            server.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        };
        drop(served.await);
    }
}
