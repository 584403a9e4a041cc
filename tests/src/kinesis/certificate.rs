use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// A self-signed certificate for 127.0.0.1, and the file that clients verify it by. The file is removed with this.
#[derive(Debug)]
pub(super) struct Certificate {
    der: CertificateDer<'static>,
    key: Vec<u8>,
    file: NamedTempFile,
}

impl Certificate {
    pub(super) fn new() -> io::Result<Self> {
        let made = generate_simple_self_signed([Ipv4Addr::LOCALHOST.to_string()]);
        let CertifiedKey { cert, signing_key } = made.map_err(io::Error::other)?;
        let mut file = NamedTempFile::new()?;
        file.write_all(cert.pem().as_bytes())?;
        Ok(Self {
            der: cert.der().clone(),
            key: signing_key.serialize_der(),
            file,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Returns what accepts connections that agree on one of these protocols, or on none if there are none.
    pub(super) fn acceptor(&self, protocols: &[&[u8]]) -> io::Result<TlsAcceptor> {
        let key = PrivatePkcs8KeyDer::from(self.key.clone());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key.into())
            .map_err(io::Error::other)?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
