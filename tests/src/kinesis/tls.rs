//! Terminates TLS in front of a plain port, for clients that require TLS.

use std::fmt;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::NamedTempFile;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::{ProxyTarget, TcpProxy};

/// A TLS port that forwards to a plain one. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Tls {
    network: TcpProxy,
    certificate: NamedTempFile,
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
        let made = generate_simple_self_signed([Ipv4Addr::LOCALHOST.to_string()]);
        let CertifiedKey { cert, signing_key } = made.map_err(io::Error::other)?;
        let mut certificate = NamedTempFile::new()?;
        certificate.write_all(cert.pem().as_bytes())?;

        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key.into())
            .map_err(io::Error::other)?;

        let acceptor = TlsAcceptor::from(Arc::new(config));
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
