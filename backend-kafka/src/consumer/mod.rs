//! Members of consumer groups.
//!
//! A member is a client of librdkafka on a thread of its own ([`poller`]), an aide for the questions
//! that block ([`aide`]), one that wakes what librdkafka lets sleep ([`kicker`]), and a handle
//! ([`membership`]) by which the runtime talks to them.

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
use crate::connection::context::Context;
use crate::error;
use crate::group::{birth, reset};
use crate::native::consume::DataQueue;
use crate::native::group_offsets::StoredOffset;
use crate::transactions::TransactionalProducer;

mod aide;
mod bell;
mod checkpoint;
mod claims;
mod commits;
mod context;
mod fetch_failures;
mod initial_offsets;
mod kicker;
mod lag;
mod leader_epochs;
mod mailbox;
mod membership;
mod poller;
mod progress;
mod pulse;
mod questions;
mod rebalance;
mod records;
mod recreated;
mod reentry;
mod resets;
mod settings;
mod slots;
mod stalled;
#[cfg(test)]
mod tests;
mod watch;

use aide::Aide;
use bell::Bell;
use commits::Commits;
use context::MemberContext;
use initial_offsets::InitialOffsets;
use kicker::Kicker;
use mailbox::{Load, Mailbox};
use membership::{Commands, Membership};
use poller::Poller;
use pulse::Pulse;
use slots::Slots;

#[derive(Debug)]
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

    /// Starts the threads of a member, and answers its handle with its id to come.
    fn start(
        &self,
        join: JoinOptions,
        born: Vec<StoredOffset>,
    ) -> Result<(Membership, oneshot::Receiver<Result<String>>)> {
        let settings = settings::of_member(&self.connection, &self.name, &join);

        let bell = Arc::new(Bell::default());
        let context = MemberContext::new(self.connection.lasting_context("join").group(&self.name));
        let consumer = BaseConsumer::from_config_and_context(&settings, context);
        let mut consumer = consumer.map_err(|e| error::from("join", e))?;
        consumer.set_nonempty_callback({
            let bell = bell.clone();
            move || bell.ring()
        });
        let consumer = Arc::new(consumer);
        let queue = Arc::new(DataQueue::new(consumer.clone()));
        let (to, commands) = mpsc::channel();
        let mailbox = Arc::new(Mailbox::new(Load {
            records: join.batch_records,
            bytes: join.batch_bytes,
        }));
        let client_id = settings::client_id(&self.connection, &join);
        let side = self.open_side(&client_id)?;
        let aide = Aide::start(consumer.clone(), side, &self.name, to.clone(), bell.clone())?;
        let kicker = Kicker::start(consumer.clone())?;
        let transactions =
            TransactionalProducer::new(&self.connection, &self.transactional_id(), &client_id);
        let transactions = Arc::new(transactions);
        let (joined, id) = oneshot::channel();
        let consumes = &self.connection.config.consumer;
        let poller = Poller {
            group: self.name.clone(),
            join,
            protocol: consumes.protocol,
            consumer,
            queue,
            mailbox: mailbox.clone(),
            bell: bell.clone(),
            aide,
            kicker,
            transactions: transactions.clone(),
            slots: Slots::default(),
            pending: None,
            claim: None,
            heir_at: None,
            named: consumes.instance_id.is_some(),
            next_up: VecDeque::new(),
            commits: Commits::default(),
            astray: Vec::new(),
            generation: 0,
            assignments: 0,
            told: 0,
            watched: Instant::now(),
            pulse: Pulse::new(consumes.protocol, consumes.heartbeat_interval()),
            initial_offsets: InitialOffsets::new(born),
            steps: VecDeque::new(),
            looked: Instant::now(),
            joined: Some(joined),
        };
        thread::Builder::new()
            .name("kafka-member".into())
            .spawn(move || {
                let _end = EndOfMember::new(&poller);
                poller.run(&commands);
            })
            .map_err(aide::no_thread)?;
        let membership = Membership {
            id: String::new(),
            commands: Commands { to, bell },
            mailbox,
            transactions,
        };
        Ok((membership, id))
    }

    /// Starts a member, and waits until the group lets it in.
    async fn enter(&self, join: JoinOptions, born: Vec<StoredOffset>) -> Result<Membership> {
        // Others may have to drain before the group lets a new member in.
        let patience = self.connection.config.request_timeout + join.drain;
        let (mut membership, id) = self.start(join, born)?;
        membership.id = match timeout(patience, id).await {
            Ok(Ok(id)) => id?,
            Ok(Err(_)) => return Err(self.refused(ErrorKind::Unavailable, "the member has ended")),
            Err(_) => {
                let message = format!("the group did not let the member in within {patience:?}");
                return Err(self.refused(ErrorKind::Timeout, message));
            }
        };
        Ok(membership)
    }

    /// A client that asks what is stored in the group beside the group.
    fn open_side(&self, client_id: &str) -> Result<BaseConsumer<Context>> {
        let mut settings = self.connection.common();
        settings.set("group.id", reset::side_group(&self.name));
        settings.set("enable.auto.commit", "false");
        settings.set("client.id", client_id);
        let context = self.connection.context("read resets");
        BaseConsumer::from_config_and_context(&settings, context)
            .map_err(|e| error::from("join", e))
    }

    /// Stays with a member whose name stays, and is nobody else's otherwise.
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

/// Ends a member with its polling thread, however that ends. A panic would otherwise leave a client that
/// sends heartbeats and keeps its partitions, and a runtime that waits for events.
struct EndOfMember {
    group: Arc<str>,
    /// The client itself ends with the thread.
    consumer: Weak<BaseConsumer<MemberContext>>,
    mailbox: Arc<Mailbox>,
    bell: Arc<Bell>,
}

impl EndOfMember {
    fn new(poller: &Poller) -> Self {
        Self {
            group: poller.group.clone(),
            consumer: Arc::downgrade(&poller.consumer),
            mailbox: poller.mailbox.clone(),
            bell: poller.bell.clone(),
        }
    }
}

impl Drop for EndOfMember {
    fn drop(&mut self) {
        if thread::panicking() {
            let message = "the thread that polls the member panicked";
            let error = Error::new(ErrorKind::Unavailable, "read", message);
            self.mailbox.fail(error.with_group(self.group.clone()));
        }
        if let Some(consumer) = self.consumer.upgrade() {
            consumer.context().close();
        }
        // It holds the client, and the client holds it.
        self.bell.reach(None);
    }
}

#[async_trait]
impl driver::ConsumerGroup for Group {
    async fn join(&self, join: JoinOptions) -> Result<Arc<dyn driver::Membership>> {
        settings::check(&join).map_err(|error| error.with_group(self.name.clone()))?;
        let born = birth::pin(&self.connection, &self.name, &join.streams, join.start).await?;
        let (join, born) = (&join, &born);
        let joined = reentry::once_released(|| self.enter(join.clone(), born.clone()));
        let joined = joined.await.map_err(|e| match e.group() {
            Some(_) => e,
            None => e.with_group(self.name.clone()),
        })?;
        Ok(Arc::new(joined))
    }
}
