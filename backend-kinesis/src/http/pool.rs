//! The connections of one client.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::client::legacy::{Builder, Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connect::{Connector, Connectors};
use super::progress::{Download, Progress, Upload};
use crate::causes::find;

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(20);

/// The interval of HTTP/2 pings, and the timeout of their responses.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);

/// The bytes of a subscription that are sent ahead of its reader: for the 2 MB/s of a shard at 250 ms of latency.
const WINDOW: u32 = 512 << 10;

/// The connections of one client.
#[derive(Debug)]
pub(super) struct Pool {
    connectors: Connectors,
    /// The connections of requests, and how often they were replaced.
    requests: Mutex<(u64, Client<Connector, Upload>)>,
}

impl Pool {
    pub(super) fn new(connectors: Connectors) -> Self {
        let requests = requests(&connectors);
        Self {
            connectors,
            requests: Mutex::new((0, requests)),
        }
    }

    /// Sends a request over a connection that serves no other request at the same time.
    pub(super) async fn send(
        &self,
        request: Request<SdkBody>,
        stall: Duration,
    ) -> Result<Response<SdkBody>, ConnectorError> {
        let (generation, client) = self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let progress = Progress::new(stall);
        let mut request = request.map(|body| Upload::new(body, progress.clone()));
        capture(&mut request);
        let mut attempt = Attempt {
            pool: self,
            generation,
            has_response: false,
        };
        let response = response_of(&progress, client.request(request)).await?;
        attempt.has_response = true;
        Ok(response.map(|body| SdkBody::from_body_1_x(Download::new(body, progress))))
    }

    /// Sends a request over a new connection, which ends with the response.
    pub(super) async fn subscribe(
        &self,
        request: Request<SdkBody>,
        stall: Duration,
    ) -> Result<Response<SdkBody>, ConnectorError> {
        let client: Client<_, Upload> = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(PONG)
            // This client is dropped with the request. hyper takes a connection without a client for idle, although its
            // subscription goes on, and would not ping it.
            .http2_keep_alive_while_idle(true)
            .http2_initial_stream_window_size(WINDOW)
            .http2_initial_connection_window_size(WINDOW)
            .pool_max_idle_per_host(0)
            .build(self.connectors.http2.clone());
        let progress = Progress::new(stall);
        let request = request.map(|body| Upload::new(body, progress.clone()));
        let response = response_of(&progress, client.request(request)).await?;
        // Not watched: it may be silent as long as it is not read, and its reader has a timeout.
        Ok(response.map(SdkBody::from_body_1_x))
    }

    /// Leaves all connections of this generation. They are closed when their requests have ended.
    fn leave(&self, generation: u64) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.0 == generation {
            *requests = (generation + 1, self::requests(&self.connectors));
        }
    }
}

/// A request. If it is dropped without a response, its connection may be dead, and with it all others to the same host.
struct Attempt<'a> {
    pool: &'a Pool,
    generation: u64,
    has_response: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.has_response {
            self.pool.leave(self.generation);
        }
    }
}

fn requests(connectors: &Connectors) -> Client<Connector, Upload> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(connectors.http1.clone())
}

/// Lets the SDK close the connection after an error of the server behind it.
fn capture(request: &mut Request<Upload>) {
    let captured = capture_connection(request);
    if let Some(sdk) = request.extensions().get::<CaptureSmithyConnection>() {
        sdk.set_connection_retriever(move || {
            let captured = captured.clone();
            captured.connection_metadata().as_ref()?;
            let poison = move || {
                if let Some(connection) = captured.connection_metadata().as_ref() {
                    connection.poison();
                }
            };
            Some(
                ConnectionMetadata::builder()
                    .proxied(false)
                    .poison_fn(poison)
                    .build(),
            )
        });
    }
}

/// Waits for the header of a response.
async fn response_of(
    progress: &Progress,
    response: ResponseFuture,
) -> Result<Response<Incoming>, ConnectorError> {
    let response = progress.watch(response).await;
    response
        .map_err(|stalled| ConnectorError::timeout(stalled.into()))?
        .map_err(failure)
}

/// Returns the SDK's error for a failed request.
fn failure(error: hyper_util::client::legacy::Error) -> ConnectorError {
    let cause = find::<io::Error>(&error).map(io::Error::kind);
    match cause {
        Some(io::ErrorKind::TimedOut) => ConnectorError::timeout(error.into()),
        // Whatever it is: it is not known whether the service has the request.
        _ => ConnectorError::io(error.into()),
    }
}
