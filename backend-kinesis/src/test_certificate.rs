//! A self-signed certificate for servers with TLS in tests.

use std::io::Write;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;

/// The certificate, and the file by which clients verify it. The file is removed with this.
pub(crate) struct TestCertificate {
    pub(crate) pem: String,
    file: NamedTempFile,
    made: CertifiedKey<rcgen::KeyPair>,
}

impl TestCertificate {
    pub(crate) fn new(hosts: &[&str]) -> Self {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let made = generate_simple_self_signed(hosts).unwrap();
        let pem = made.cert.pem();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(pem.as_bytes()).unwrap();
        Self { pem, file, made }
    }

    pub(crate) fn file(&self) -> &str {
        self.file.path().to_str().unwrap()
    }

    /// Returns what accepts connections with this protocol.
    pub(crate) fn acceptor(&self, protocol: &str) -> TlsAcceptor {
        let key = PrivatePkcs8KeyDer::from(self.made.signing_key.serialize_der());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.made.cert.der().clone()], key.into())
            .unwrap();
        config.alpn_protocols = vec![protocol.into()];
        TlsAcceptor::from(Arc::new(config))
    }
}
