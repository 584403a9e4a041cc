//! Members of consumer groups.
//!
//! A member is a client of librdkafka on its own thread ([`poll_loop`]), which carries out the decisions of the
//! member's [`state`], and a handle ([`member`]) that the runtime uses to talk to it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::Instant;

use async_trait::async_trait;
use millstream_core::driver::{self, JoinOptions};
use millstream_core::{Error, ErrorKind, Result};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::connection::Connection;
use crate::connection::context::FatalError;
use crate::group::initial_offsets;
use crate::native::data_queue::DataQueue;
use crate::native::group_offsets::StoredOffset;
use crate::transactions::TransactionalProducer;
use crate::{background, error};

mod callbacks;
mod command;
pub(crate) mod event_queue;
mod instance_id;
mod lists;
mod member;
mod poll_loop;
mod poll_waker;
mod requests;
mod settings;
mod state;
#[cfg(test)]
mod tests;
mod types;

use callbacks::ConsumerCallbacks;
use command::Commands;
use event_queue::{Amount, EventQueue};
use member::Member;
use poll_loop::PollLoop;
use poll_waker::PollWaker;
use requests::Requests;
use state::{MemberState, StateSettings};

#[derive(Debug, Clone)]
pub(crate) struct Group {
    connection: Arc<Connection>,
    name: Arc<str>,
}

impl Group {
    pub(crate) fn new(connection: &Arc<Connection>, name: &str) -> Self {
        Self {
            connection: connection.clone(),
            name: name.into(),
        }
    }

    /// Starts the thread of a member.
    fn start(
        &self,
        join: JoinOptions,
        initial_offsets: Vec<StoredOffset>,
    ) -> Result<StartedMember> {
        let settings = settings::of_member(&self.connection, &self.name, &join);

        let waker = Arc::new(PollWaker::default());
        let context = self.connection.lasting_context("join").group(&self.name);
        let errors = context.fatal_error.clone();
        let callbacks = ConsumerCallbacks::new(context);
        let consumer = BaseConsumer::from_config_and_context(&settings, callbacks);
        let mut consumer = consumer.map_err(|e| error::from("join", e))?;
        consumer.set_nonempty_callback({
            let waker = waker.clone();
            move || waker.wake()
        });
        let consumer = Arc::new(consumer);
        let (to, commands) = mpsc::channel();
        let events = Arc::new(EventQueue::new(Amount {
            records: join.batch_records,
            bytes: join.batch_bytes,
        }));
        let client_id = settings::client_id(&self.connection, &join);
        let producer =
            TransactionalProducer::new(&self.connection, &self.transactional_id(), &client_id);
        let producer = Arc::new(producer);
        let (joined, id) = oneshot::channel();
        let config = &self.connection.config.consumer;
        let poll_loop = PollLoop {
            group: self.name.clone(),
            streams: join.streams.clone(),
            protocol: config.protocol,
            requests: Requests::new(&self.connection, consumer.clone(), &self.name, &waker),
            records: Arc::new(DataQueue::new(consumer.clone())),
            consumer,
            events: events.clone(),
            waker: waker.clone(),
            producer: producer.clone(),
            transactions: VecDeque::new(),
            state: MemberState::new(
                StateSettings {
                    group: self.name.clone(),
                    join,
                    protocol: config.protocol,
                    heartbeat_interval: config.heartbeat_interval(),
                    rebalance_drain_timeout: config.rebalance_drain_timeout,
                    is_static: config.instance_id.is_some(),
                    initial_offsets,
                },
                joined,
                Instant::now(),
            ),
        };
        thread::Builder::new()
            .name("kafka-member".into())
            .spawn(move || {
                let _end = EndOfMember::new(&poll_loop);
                poll_loop.run(&commands);
            })
            .map_err(|failed| error::no_thread("join", failed))?;
        let member = Member {
            id: String::new(),
            commands: Commands { to, waker },
            events,
            producer,
        };
        Ok(StartedMember { member, id, errors })
    }

    /// Calls [`start`](Self::start) in the background. With TLS, opening a client takes tens of milliseconds: it loads
    /// certificates.
    async fn start_in_background(
        &self,
        join: JoinOptions,
        initial_offsets: Vec<StoredOffset>,
    ) -> Result<StartedMember> {
        let group = self.clone();
        background::run("join", move || group.start(join, initial_offsets)).await?
    }

    /// Starts a member, and waits until the group lets it in.
    async fn enter(&self, join: JoinOptions, initial_offsets: Vec<StoredOffset>) -> Result<Member> {
        // Other members may have to drain before the group lets a new member in.
        let deadline = self.connection.config.request_timeout + join.drain;
        let started = self.start_in_background(join, initial_offsets).await?;
        let StartedMember {
            mut member,
            id,
            errors,
        } = started;
        member.id = match timeout(deadline, id).await {
            Ok(Ok(id)) => id?,
            Ok(Err(_)) => return Err(self.refused(ErrorKind::Unavailable, "the member has ended")),
            Err(_) => {
                let reason = errors.recent_error();
                let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
                let message =
                    format!("the group did not let the member in within {deadline:?}{reason}");
                return Err(self.refused(ErrorKind::Timeout, message));
            }
        };
        Ok(member)
    }

    /// Returns the transactional id. It stays the same for a member with an `instance_id`, and is unique otherwise.
    fn transactional_id(&self) -> String {
        let member = match &self.connection.config.consumer.instance_id {
            Some(id) => id.clone(),
            None => format!("{:032x}", fastrand::u128(..)),
        };
        format!("{}.{member}", self.name)
    }

    fn refused(&self, kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(kind, "join", message).with_group(self.name.clone())
    }
}

/// A started member that waits to be let in.
struct StartedMember {
    member: Member,
    /// Receives the member's id when the group lets it in.
    id: oneshot::Receiver<Result<String>>,
    /// The errors of its client.
    errors: FatalError,
}

/// Ends a member together with its polling thread, however the thread ends. Otherwise a panic would leave a client
/// that sends heartbeats and keeps its partitions, and a runtime that waits for events.
struct EndOfMember {
    group: Arc<str>,
    /// The client itself ends with the thread.
    consumer: Weak<BaseConsumer<ConsumerCallbacks>>,
    events: Arc<EventQueue>,
    waker: Arc<PollWaker>,
}

impl EndOfMember {
    fn new(of: &PollLoop) -> Self {
        Self {
            group: of.group.clone(),
            consumer: Arc::downgrade(&of.consumer),
            events: of.events.clone(),
            waker: of.waker.clone(),
        }
    }
}

impl Drop for EndOfMember {
    fn drop(&mut self) {
        if thread::panicking() {
            let message = "the thread that polls the member panicked";
            let error = Error::new(ErrorKind::Unavailable, "read", message);
            self.events.fail(error.with_group(self.group.clone()));
        }
        if let Some(consumer) = self.consumer.upgrade() {
            consumer.context().close();
        }
        // The waker holds the client, and the client holds the waker.
        self.waker.detach();
    }
}

#[async_trait]
impl driver::ConsumerGroup for Group {
    async fn join(&self, join: JoinOptions) -> Result<Arc<dyn driver::Membership>> {
        settings::check(&join).map_err(|error| error.with_group(self.name.clone()))?;
        let initial =
            initial_offsets::resolve(&self.connection, &self.name, &join.streams, join.start)
                .await?;
        let (join, initial) = (&join, &initial);
        let joined = instance_id::once_released(|| self.enter(join.clone(), initial.clone()));
        let joined = joined.await.map_err(|e| match e.group() {
            Some(_) => e,
            None => e.with_group(self.name.clone()),
        })?;
        Ok(Arc::new(joined))
    }
}
