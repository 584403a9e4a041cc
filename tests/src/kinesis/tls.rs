//! Terminates TLS in front of a plain port, for clients that require TLS.

use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::NamedTempFile;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

/// A TLS port that forwards to a plain one. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Tls {
    port: u16,
    certificate: NamedTempFile,
    serving: JoinHandle<()>,
}

impl Tls {
    /// Opens a port on 127.0.0.1 that forwards to this one.
    pub async fn open(to: u16) -> io::Result<Self> {
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

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self {
            port,
            certificate,
            serving: tokio::spawn(serve(listener, acceptor, to)),
        })
    }

    /// Returns the address for clients.
    pub fn endpoint(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Returns the file with the certificate, for clients that verify it. It is removed with this.
    pub fn certificate(&self) -> &Path {
        self.certificate.path()
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, to: u16) {
    // Ends every connection when this is aborted.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(handle_connection(client, acceptor.clone(), to));
                }
                Err(error) => panic!("no connection can be accepted: {error}"),
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
        }
    }
}

/// A connection that fails is closed, which is what its client must see.
async fn handle_connection(client: TcpStream, acceptor: TlsAcceptor, to: u16) {
    let led = async {
        client.set_nodelay(true)?;
        let mut client = acceptor.accept(client).await?;
        let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await?;
        server.set_nodelay(true)?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    };
    drop(led.await);
}
