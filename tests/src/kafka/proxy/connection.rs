//! One proxied connection between a client and the broker.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::faults::{Action, Faults, ResponseAction};
use super::request::Request;
use super::request_log::RequestLog;
use super::response;
use crate::kafka::frame;

/// The maximum number of responses under way on one connection: more than a client has requests.
const MAX_IN_FLIGHT: usize = 1_024;

struct Connection {
    faults: Faults,
    request_log: RequestLog,
    /// The client id in its first request.
    client: OnceLock<String>,
    /// What happens to responses that are not simply forwarded, by correlation id.
    marked: Mutex<BTreeMap<i32, ResponseAction>>,
}

/// A response, and when it is due.
type Due = (Instant, Bytes);

/// Forwards everything until either side ends, or a fault ends it.
pub(super) async fn forward(
    client: TcpStream,
    broker: TcpStream,
    faults: Faults,
    request_log: RequestLog,
) {
    for socket in [&client, &broker] {
        // Delays are to be those of the faults.
        drop(socket.set_nodelay(true));
    }
    let connection = Connection {
        faults,
        request_log,
        client: OnceLock::new(),
        marked: Mutex::default(),
    };
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let (responses, due) = mpsc::channel(MAX_IN_FLIGHT);
    // Whoever ends first ends all: the sockets close with this function, both at once.
    let ended = tokio::select! {
        ended = connection.requests(from_client, to_broker, responses.clone()) => ended,
        ended = connection.responses(from_broker, responses) => ended,
        ended = connection.deliver(due, to_client) => ended,
    };
    // A side that is gone is the other side's to notice. That the proxy does not understand what
    // it reads is a fault of the proxy.
    if let Err(error) = ended {
        assert!(error.kind() != io::ErrorKind::InvalidData, "{error}");
    }
}

impl Connection {
    fn marked(&self) -> MutexGuard<'_, BTreeMap<i32, ResponseAction>> {
        self.marked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the client is frozen.
    async fn thawed(&self) {
        if let Some(client) = self.client.get() {
            self.faults.thawed(client).await;
        }
    }

    async fn requests(
        &self,
        mut client: impl AsyncRead + Unpin,
        mut broker: impl AsyncWrite + Unpin,
        responses: mpsc::Sender<Due>,
    ) -> io::Result<()> {
        while let Some(frame) = frame::read(&mut client).await? {
            let request = Request::parse(&frame)?;
            self.request_log.note(&request);
            self.client.get_or_init(|| request.client().to_owned());
            self.thawed().await;
            match self.faults.action_for(&request)? {
                Action::Forward => broker.write_all(&frame).await?,
                Action::Track(action) => {
                    self.marked().insert(request.correlation(), action);
                    broker.write_all(&frame).await?;
                }
                Action::Respond(after, response) => {
                    // It may overtake the responses to what was asked before: a client knows its
                    // requests by their correlation.
                    if responses
                        .send((Instant::now() + after, response))
                        .await
                        .is_err()
                    {
                        return Ok(());
                    }
                }
                Action::Cut => return Ok(()),
            }
        }
        Ok(())
    }

    async fn responses(
        &self,
        mut broker: impl AsyncRead + Unpin,
        responses: mpsc::Sender<Due>,
    ) -> io::Result<()> {
        while let Some(frame) = frame::read(&mut broker).await? {
            let correlation = frame::correlation(&frame)?;
            let action = self.marked().remove(&correlation);
            let now = Instant::now();
            let due = match action {
                None => (now, frame),
                Some(ResponseAction::Late(by)) => (now + by, frame),
                Some(ResponseAction::Replaced(other)) => (now, other),
                Some(ResponseAction::WithoutBrokers(version)) => {
                    (now, response::without_brokers(&frame, version)?)
                }
                Some(ResponseAction::Lost) => return Ok(()),
            };
            if responses.send(due).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn deliver(
        &self,
        mut responses: mpsc::Receiver<Due>,
        mut client: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        while let Some((due, frame)) = responses.recv().await {
            sleep_until(due).await;
            self.thawed().await;
            client.write_all(&frame).await?;
        }
        Ok(())
    }
}
