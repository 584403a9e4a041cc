//! One proxied connection between a client and the broker.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::faults::{Action, Faults, ResponseAction};
use super::ports::{Naming, PortChange};
use super::request::Request;
use super::request_log::RequestLog;
use super::response;
use crate::kafka::frame;

/// The maximum number of responses in flight on one connection: more than a client has requests.
const MAX_IN_FLIGHT: usize = 1_024;

/// The faults and rewrites of a connection's requests and responses.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) faults: Faults,
    pub(super) request_log: RequestLog,
    pub(super) port_change: PortChange,
}

struct Connection {
    layer: Layer,
    /// The actions for responses that are not simply forwarded, by correlation id.
    marked: Mutex<BTreeMap<i32, Mark>>,
}

#[derive(Debug)]
enum Mark {
    Fault(ResponseAction),
    /// The response contains the ports of brokers.
    Ports(Naming),
}

/// A response, and the time at which it is due.
type Due = (Instant, Bytes);

/// Forwards everything until either side ends, or a fault ends it.
pub(super) async fn forward(client: DuplexStream, broker: TcpStream, layer: Layer) {
    // Only the faults may delay the data.
    drop(broker.set_nodelay(true));
    let connection = Connection {
        layer,
        marked: Mutex::default(),
    };
    let (from_client, to_client) = tokio::io::split(client);
    let (from_broker, to_broker) = broker.into_split();
    let (responses, due) = mpsc::channel(MAX_IN_FLIGHT);
    // The first end closes both sides: both sockets are closed with this function.
    let ended = tokio::select! {
        ended = connection.requests(from_client, to_broker, responses.clone()) => ended,
        ended = connection.responses(from_broker, responses) => ended,
        ended = connection.deliver(due, to_client) => ended,
    };
    // If a side is gone, the other side detects it. A message that the proxy cannot parse is an error
    // of the proxy.
    if let Err(error) = ended {
        assert!(error.kind() != io::ErrorKind::InvalidData, "{error}");
    }
}

impl Connection {
    fn marked(&self) -> MutexGuard<'_, BTreeMap<i32, Mark>> {
        self.marked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn requests(
        &self,
        mut client: impl AsyncRead + Unpin,
        mut broker: impl AsyncWrite + Unpin,
        responses: mpsc::Sender<Due>,
    ) -> io::Result<()> {
        while let Some(frame) = frame::read(&mut client).await? {
            let request = Request::parse(&frame)?;
            self.layer.request_log.note(&request);
            match self.layer.faults.action_for(&request)? {
                Action::Forward => {
                    if let Some(naming) = self.layer.port_change.concerns(&request) {
                        let mark = Mark::Ports(naming);
                        self.marked().insert(request.correlation(), mark);
                    }
                    broker.write_all(&frame).await?;
                }
                Action::Hold(by) => {
                    sleep(by).await;
                    broker.write_all(&frame).await?;
                }
                Action::Track(action) => {
                    let mark = Mark::Fault(action);
                    self.marked().insert(request.correlation(), mark);
                    broker.write_all(&frame).await?;
                }
                Action::Respond(after, response) => {
                    // It may overtake the responses to earlier requests: a client matches responses to
                    // requests by their correlation id.
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
            let mark = self.marked().remove(&correlation);
            let now = Instant::now();
            let due = match mark {
                None => (now, frame),
                Some(Mark::Ports(naming)) => (now, self.layer.port_change.apply(&frame, naming)?),
                Some(Mark::Fault(ResponseAction::Late(by))) => (now + by, frame),
                Some(Mark::Fault(ResponseAction::Replaced(other))) => (now, other),
                Some(Mark::Fault(ResponseAction::WithoutBrokers(version))) => {
                    (now, response::without_brokers(&frame, version)?)
                }
                Some(Mark::Fault(ResponseAction::WithoutTopic(version, topic))) => {
                    (now, response::without_topic(&frame, version, &topic)?)
                }
                Some(Mark::Fault(ResponseAction::FetchError(version, error))) => {
                    (now, response::failed_fetch(&frame, version, error)?)
                }
                Some(Mark::Fault(ResponseAction::Lost)) => return Ok(()),
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
            client.write_all(&frame).await?;
        }
        Ok(())
    }
}
