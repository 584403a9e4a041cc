//! The HTTP transport of both services, and the only place that knows connections.
//!
//! The AWS SDK's own client sends all requests to `https://` addresses over one HTTP/2 connection. Kinesis allows few
//! streams on it ([5 were seen][streams]), and further requests wait. A subscription that is not read uses up the flow
//! control window of all others. A connection that dies silently stays until TCP gives up, after about 15 minutes.
//! Therefore:
//!
//! * A request and its response have a connection of HTTP/1.1 to themselves ([`Pool`]). A request that is given up closes
//!   its connection, and the idle ones, too: they may be just as dead.
//! * A subscription has a connection to itself ([`subscribe`](Pool::subscribe)): HTTP/2 where the service offers it, and
//!   pinged.
//! * A request fails if nothing was sent or received for the read timeout ([`Progress`]), and not because a slow network
//!   needs longer. Only the SDK's attempt timeout bounds the whole.
//!
//! [streams]: https://github.com/apache/pekko-connectors/issues/830

mod connect;
mod pool;
mod progress;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind, Result};

use crate::credit::Credit;
use connect::Connectors;
use pool::Pool;
pub(crate) use progress::Stalled;

/// The timeout of a request whose client has no read timeout.
const STALL: Duration = Duration::from_secs(10);

/// The certificates and proxies that all clients of a connection share.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    connectors: Connectors,
}

impl Transport {
    /// Loads the root certificates of the system and those in `ca_file`. Warns of those in the file that cannot be used.
    pub(crate) async fn load(ca_file: Option<&Path>) -> Result<Self> {
        let path = ca_file.map(Path::to_owned);
        // It reads files.
        let loaded = tokio::task::spawn_blocking(move || Connectors::load(path.as_deref())).await;
        let loaded = loaded.map_err(io::Error::other).and_then(|loaded| loaded);
        let (connectors, ignored) = loaded.map_err(|error| {
            let message = match ca_file {
                Some(path) => format!(
                    "{}, of `ca_file` or AWS_CA_BUNDLE, is no file of PEM certificates",
                    path.display()
                ),
                None => "the root certificates cannot be loaded".to_owned(),
            };
            Error::new(ErrorKind::Invalid, "connect", message).with_source(error)
        })?;
        if let Some(path) = ca_file.filter(|_| ignored > 0) {
            event!(
                warn, "millstream.kinesis.ca_file.ignored",
                file = %path.display(), ignored,
                "certificates of `ca_file` or AWS_CA_BUNDLE cannot be parsed and are not trusted"
            );
        }
        Ok(Self { connectors })
    }

    /// Returns an HTTP client with connections of its own, which reports that credentials are accepted.
    pub(crate) fn client(&self, credit: &Credit) -> SharedHttpClient {
        SharedHttpClient::new(Client {
            pool: Arc::new(Pool::new(self.connectors.clone())),
            credit: credit.clone(),
        })
    }
}

/// The SDK's HTTP client.
#[derive(Debug)]
struct Client {
    pool: Arc<Pool>,
    credit: Credit,
}

impl HttpClient for Client {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector {
            pool: self.pool.clone(),
            credit: self.credit.clone(),
            stall: settings.read_timeout().unwrap_or(STALL),
        })
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        Some(ConnectorMetadata::new("hyper", Some(Cow::Borrowed("1.x"))))
    }
}

/// A client with the timeout of one operation.
#[derive(Debug)]
struct Connector {
    pool: Arc<Pool>,
    credit: Credit,
    stall: Duration,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (pool, credit, stall) = (self.pool.clone(), self.credit.clone(), self.stall);
        HttpConnectorFuture::new(async move {
            let target = request.headers().get("x-amz-target");
            let subscribes = target.is_some_and(|target| target.ends_with(".SubscribeToShard"));
            let request = request.try_into_http1x();
            let request = request.map_err(|error| ConnectorError::user(error.into()))?;
            let response = match subscribes {
                true => pool.subscribe(request, stall).await?,
                false => pool.send(request, stall).await?,
            };
            let response = HttpResponse::try_from(response);
            let response = response.map_err(|e| ConnectorError::other(e.into(), None))?;
            if response.status().is_success() {
                credit.accepted();
            }
            Ok(response)
        })
    }
}
