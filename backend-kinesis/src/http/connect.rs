//! Opens connections: TCP, through a proxy if there is one, and TLS.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

/// The timeout of a connection, with TLS.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Idle connections are probed after this time, and then at this interval, so that routers keep them and dead ones are
/// noticed.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;
type Tcp = TokioIo<TcpStream>;

/// The two kinds of connections.
#[derive(Debug, Clone)]
pub(super) struct Connectors {
    pub(super) http1: Connector,
    /// With HTTP/2, if the service offers it.
    pub(super) http2: Connector,
}

impl Connectors {
    /// Loads the root certificates of the system and those of a file. Returns how many of the file cannot be used, too.
    pub(super) fn load(ca_file: Option<&Path>) -> io::Result<(Self, usize)> {
        let mut unusable = 0;
        let mut roots = RootCertStore::empty();
        // Without any, connections with TLS fail, and those without it, to an emulator, do not.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = ca_file {
            let certificates = CertificateDer::pem_file_iter(path).map_err(io::Error::other)?;
            let certificates: Result<Vec<_>, _> = certificates.collect();
            let certificates = certificates.map_err(io::Error::other)?;
            // One that cannot be used does not make the others useless, as with those of the system.
            let (added, ignored) = roots.add_parsable_certificates(certificates);
            unusable = ignored;
            if added == 0 {
                return Err(io::Error::other("it has no certificate"));
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        // The TLS layer decides.
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        let route = Route {
            tcp,
            proxies: Arc::new(Matcher::from_env()),
        };
        let connector = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Connector(HttpsConnector::from((route.clone(), config)))
        };
        let connectors = Self {
            http1: connector(&[b"http/1.1"]),
            http2: connector(&[b"h2", b"http/1.1"]),
        };
        Ok((connectors, unusable))
    }
}

/// Opens a connection, with TLS to an `https://` address.
#[derive(Clone)]
pub(super) struct Connector(HttpsConnector<Route>);

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Tcp>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        // Not the authority, which may have a password.
        let host = to.host().unwrap_or_default().to_owned();
        let port = to.port_u16();
        let connecting = timeout(TIMEOUT, self.0.call(to));
        Box::pin(async move {
            let connected = connecting.await.map_err(io::Error::from);
            let connected = connected.map_err(BoxError::from).and_then(|tried| tried);
            connected.map_err(|source| Unreached { host, port, source }.into())
        })
    }
}

/// The error of a connection that could not be opened. The others do not name the address, which may be a wrong one.
#[derive(Debug)]
struct Unreached {
    host: String,
    port: Option<u16>,
    source: BoxError,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection to {}", self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Unreached {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// Opens the TCP connection: directly, or through the proxy of `HTTPS_PROXY` and `NO_PROXY`. A plain-text address,
/// which is an emulator's, is reached directly.
#[derive(Debug, Clone)]
struct Route {
    tcp: HttpConnector,
    proxies: Arc<Matcher>,
}

impl Route {
    fn proxy(&self, to: &Uri) -> Option<Intercept> {
        let is_https = to.scheme() == Some(&Scheme::HTTPS);
        is_https.then(|| self.proxies.intercept(to)).flatten()
    }
}

impl Service<Uri> for Route {
    type Response = Tcp;
    type Error = BoxError;
    type Future = Connecting<Tcp>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Some(proxy) = self.proxy(&to) else {
            let connecting = self.tcp.call(to);
            return Box::pin(async { Ok(connecting.await?) });
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
        if let Some(login) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(login.clone());
        }
        let connecting = tunnel.call(to);
        Box::pin(async { Ok(connecting.await?) })
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::telemetry::Causes;

    use crate::connection::Connection;
    use crate::fake_service::FakeService;
    use crate::stream;

    #[tokio::test]
    async fn an_address_that_cannot_be_reached_is_told() {
        let mut config = FakeService::start().await.config();
        // Nobody listens there.
        config.endpoint = Some("http://127.0.0.1:1".into());
        let connection = Connection::open(config).await.unwrap();
        let error = stream::describe(&connection, "test", "s").await;
        let text = Causes(&error.unwrap_err()).to_string();
        assert!(text.contains("127.0.0.1:1"), "{text}");
    }
}
