//! A client for requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use millstream_core::{Error, ErrorKind, Result};
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::oneshot;

use crate::connection::context::{Context, FatalError, LastError};
use crate::connection::set_default;
use crate::error;

/// How long a client of a group is kept for the next request.
const IDLE: Duration = Duration::from_secs(30);

/// The timeout of one librdkafka call, after which it is repeated or given up.
const TURN: Duration = Duration::from_millis(100);

/// A client that is in no group and produces nothing. It requests metadata, offsets and the like.
///
/// The client is created for the first request. A client with a fatal error is replaced for the next request. The
/// old client could recover, but waits up to 10 s before it retries, and reports an error of the same text only
/// after 30 s. A new client fails at once if it must, and uses the file's current password and a new token.
pub(crate) struct RequestClient {
    slot: Arc<ClientSlot>,
}

impl std::fmt::Debug for RequestClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestClient").finish_non_exhaustive()
    }
}

impl RequestClient {
    /// `settings` may name a group, whose committed offsets can then be requested and moved. Such a client
    /// is closed when it was idle for a while: a process may have many groups, and sends requests for each only at its
    /// start.
    pub(super) fn new(mut settings: ClientConfig, context: Context) -> Self {
        // Requests go to the leaders known from an earlier request. Each request to a leader that has died since
        // would wait until the metadata expire, by default after 15 minutes.
        set_default(&mut settings, "topic.metadata.refresh.interval.ms", "5000");
        set_default(&mut settings, "metadata.max.age.ms", "5000");
        let context = match settings.get("group.id") {
            Some(group) => context.group(group),
            None => context,
        };
        Self {
            slot: Arc::new(ClientSlot {
                settings,
                context,
                live: Mutex::default(),
            }),
        }
    }

    /// Sends a request on a thread that may block. A fatal error ends the wait at once.
    ///
    /// # Cancel safety
    /// A dropped call continues in the background until its own timeout, and its result is discarded. The thread is not
    /// one of the runtime's blocking threads: the runtime's shutdown would wait for the request.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        operation: &'static str,
        question: impl FnOnce(&BaseConsumer<Context>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T> {
        let ended = || {
            Error::new(
                ErrorKind::Closed,
                operation,
                "the thread that asks has ended",
            )
        };
        let slot = self.slot.clone();
        let since = Instant::now();
        let (begin, begun) = oneshot::channel();
        let (reply, response) = oneshot::channel();
        let asking = thread::Builder::new().name("kafka-request".into());
        let asking = asking.spawn(move || {
            let live = match slot.live(operation) {
                Ok(live) => live,
                Err(error) => {
                    // The caller may have dropped the call.
                    let _ = begin.send(Err(error));
                    return;
                }
            };
            if begin.send(Ok(live.fatal_error.clone())).is_err() {
                return;
            }
            let answer = question(&live.client);
            if matches!(&answer, Err(KafkaError::AdminOp(code)) if error::kind(*code) == ErrorKind::Timeout)
            {
                // A request to a coordinator without a response is still open, and librdkafka 2.12 aborts the
                // process when a client is closed with it. So this client is leaked. A refusal is a response, and
                // leaves nothing open.
                std::mem::forget(live);
            }
            // The caller may have dropped the call.
            let _ = reply.send(answer);
        });
        asking.map_err(|failed| error::no_thread(operation, failed))?;
        let fatal_error = begun.await.map_err(|_| ended())??;
        tokio::select! {
            biased;
            fatal_error = fatal_error.raised() => Err(fatal_error),
            answer = response => match answer {
                Ok(answer) => answer.map_err(|e| {
                    let throttled = fatal_error.last_error().filter(|last| {
                        last.kind == ErrorKind::Throttled && last.at >= since
                    });
                    failure(operation, e, throttled, fatal_error.recent_error())
                }),
                Err(_) => Err(ended()),
            },
        }
    }

    /// Returns the client, if there is one that works. Otherwise opens one in the background.
    pub(crate) fn client_or_open(&self) -> Option<Arc<BaseConsumer<Context>>> {
        if let Some(live) = self.slot.well() {
            return Some(live.client.clone());
        }
        let slot = self.slot.clone();
        let opening = thread::Builder::new().name("kafka-request".into());
        // A failure here is retried by the next call.
        let _ = opening.spawn(move || slot.live(slot.context.operation()).map(drop));
        None
    }

    /// Returns the client's fatal error, if any.
    pub(crate) fn fatal_error(&self) -> Option<Error> {
        self.slot.lock().as_ref()?.fatal_error.first()
    }

    /// Returns the reason of the client's last temporary error, unless it is old.
    pub(crate) fn recent_error(&self) -> Option<String> {
        self.slot.lock().as_ref()?.fatal_error.recent_error()
    }

    /// Returns the client's last temporary error, for an error's message.
    pub(crate) fn last_error(&self) -> Option<LastError> {
        self.slot.lock().as_ref()?.fatal_error.last_error()
    }
}

/// Returns the error of a request without a result. `throttled` and `recent` are what the client has reported
/// during the request and shortly before.
fn failure(
    operation: &'static str,
    failed: KafkaError,
    throttled: Option<LastError>,
    recent: Option<String>,
) -> Error {
    // The report of this refusal may arrive later than the request's error.
    if failed.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication) {
        let reason = "the login is refused, check `security`";
        let refused = Error::new(ErrorKind::Unauthenticated, operation, reason);
        return refused.with_source(error::from(operation, failed));
    }
    let error = error::from(operation, failed);
    if !error.is_retryable() {
        return error;
    }
    let (kind, reason) = match (throttled, recent) {
        (Some(LastError { kind, reason, .. }), _) => (kind, reason),
        // It may be the reason for the missing response.
        (None, Some(reason)) => (error.kind(), format!("{}: {reason}", error.message())),
        (None, None) => return error,
    };
    Error::new(kind, operation, reason).with_source(error)
}

/// What is needed to create a client, and the current client.
struct ClientSlot {
    settings: ClientConfig,
    context: Context,
    live: Mutex<Option<Arc<OpenClient>>>,
}

impl ClientSlot {
    /// Closes the client, if it belongs to a group and was idle for long enough.
    fn end_if_idle(&self) {
        let mut live = self.lock();
        let is_idle = |live: &Arc<OpenClient>| {
            // A running request holds a clone.
            Arc::strong_count(live) == 1 && live.used().elapsed() >= IDLE
        };
        if self.settings.get("group.id").is_some() {
            live.take_if(|live| is_idle(live));
        }
    }

    /// Returns the client, or creates one. Blocks while there is no token.
    fn live(self: &Arc<Self>, operation: &'static str) -> Result<Arc<OpenClient>> {
        if let Some(live) = self.well() {
            return Ok(live);
        }
        if let Some(tokens) = self.context.tokens() {
            tokens.wait().map_err(|reason| {
                let message = format!("no token for the login: {reason}");
                Error::new(ErrorKind::Unauthenticated, operation, message)
            })?;
        }
        let (settings, context) = self.context.successor(&self.settings);
        let mut live = self.lock();
        // Another request may have created one meanwhile.
        match &*live {
            Some(live) if live.fatal_error.first().is_none() => Ok(live.clone()),
            _ => {
                let made = Arc::new(OpenClient::open(&settings, context, Arc::downgrade(self))?);
                Ok(live.insert(made).clone())
            }
        }
    }

    fn well(&self) -> Option<Arc<OpenClient>> {
        let live = self.lock();
        let well = live
            .as_ref()
            .filter(|live| live.fatal_error.first().is_none())?;
        *well.used() = Instant::now();
        Some(well.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<OpenClient>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client and its own thread, which handles errors and tokens, so that callers may block in their
/// requests.
///
/// Dropping the last clone of the client may block, so the thread does it: `_alive` is dropped after
/// `client`, in the order of the fields, and only then does the thread drop its own clone.
struct OpenClient {
    client: Arc<BaseConsumer<Context>>,
    fatal_error: FatalError,
    /// When it was last requested.
    used: Mutex<Instant>,
    _alive: Arc<()>,
}

impl OpenClient {
    fn open(settings: &ClientConfig, context: Context, slot: Weak<ClientSlot>) -> Result<Self> {
        let (operation, fatal_error) = (context.operation(), context.fatal_error.clone());
        let client = BaseConsumer::from_config_and_context(settings, context)
            .map_err(|e| error::from(operation, e))?;
        let client = Arc::new(client);
        let alive = Arc::new(());
        let listener = thread::Builder::new().name("kafka-requests".into()).spawn({
            let (client, alive) = (client.clone(), Arc::downgrade(&alive));
            move || {
                while alive.strong_count() > 0 {
                    // No records arrive: nothing is assigned. Errors go to the context.
                    drop(client.poll(TURN));
                    client.context().keep_connected(client.client());
                    if let Some(slot) = slot.upgrade() {
                        slot.end_if_idle();
                    }
                }
            }
        });
        listener.map_err(|failed| error::no_thread(operation, failed))?;
        Ok(Self {
            client,
            fatal_error,
            used: Mutex::new(Instant::now()),
            _alive: alive,
        })
    }

    fn used(&self) -> MutexGuard<'_, Instant> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::ErrorKind;
    use rdkafka::mocking::MockCluster;
    use rdkafka::{Offset, TopicPartitionList};

    use super::*;
    use crate::group::note::Note;
    use crate::native::group_offsets::{self, StoredOffset};

    fn request_client(brokers: &str) -> RequestClient {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", brokers);
        settings.set("group.id", "g");
        settings.set("enable.auto.commit", "false");
        RequestClient::new(settings, Context::new("reset", None))
    }

    async fn store(request_client: &RequestClient, next: i64, within: Duration) -> Result<()> {
        let offset = StoredOffset::new("s", 0, next, Note::default());
        let asked = request_client.ask("reset", move |client| {
            group_offsets::store(client, "g", &[offset], within)
        });
        asked.await
    }

    async fn stored(request_client: &RequestClient) -> Result<Offset> {
        let asked = request_client.ask("read", |client| {
            let mut list = TopicPartitionList::new();
            list.add_partition("s", 0);
            let stored = client.committed_offsets(list, Duration::from_secs(10))?;
            Ok(stored.elements()[0].offset())
        });
        asked.await
    }

    /// The reason why a coordinator does not respond.
    #[derive(Clone, Copy)]
    enum Cause {
        /// No broker reports the coordinator in time.
        Unknown,
        /// The coordinator is known, and responds late.
        Slow,
        /// No broker is reachable.
        Down,
    }

    /// An abandoned request does not abort the process: neither when librdkafka has given it up, too, nor when the
    /// coordinator is found, nor when the client is closed.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_store_that_is_given_up_does_no_harm() {
        let cases = [Cause::Unknown, Cause::Slow, Cause::Down].map(async |cause| {
            let cluster = MockCluster::new(1).unwrap();
            cluster.create_topic("s", 1, 1).unwrap();
            let request_client = request_client(&cluster.bootstrap_servers());
            let long = Duration::from_secs(30);
            if matches!(cause, Cause::Slow) {
                store(&request_client, 3, long).await.unwrap();
            }
            let late = group_offsets::ABANDONED + Duration::from_secs(1);
            match cause {
                Cause::Unknown | Cause::Slow => cluster.broker_round_trip_time(1, late),
                Cause::Down => cluster.broker_down(1),
            }
            .unwrap();
            let since = Instant::now();
            let given_up = store(&request_client, 7, Duration::from_millis(500)).await;
            assert_eq!(given_up.unwrap_err().kind(), ErrorKind::Timeout);
            tokio::time::sleep_until((since + late).into()).await;
            match cause {
                Cause::Unknown | Cause::Slow => cluster.broker_round_trip_time(1, Duration::ZERO),
                Cause::Down => cluster.broker_up(1),
            }
            .unwrap();
            let until = Instant::now() + 2 * long;
            while let Err(error) = store(&request_client, 9, long).await {
                assert!(error.is_retryable(), "{error}");
                assert!(Instant::now() < until, "{error}");
            }
            assert_eq!(stored(&request_client).await.unwrap(), Offset::Offset(9));
        });
        futures_util::future::join_all(cases).await;
    }
}
