//! The transactional producer of one member. Its client is opened when it is first needed, or needed
//! again.
//!
//! A client has the size limits of one stream, since librdkafka has one limit for all streams: when the
//! stream changes to one with other limits, the client is replaced. A member publishes to one stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream_core::{ErrorKind, Result};
use rdkafka::ClientConfig;
use tokio::time::timeout;

use super::client::TransactionalClient;
use super::failure::{NotPublished, without_record};
use super::transaction::Transaction;
use super::{OPERATION, settings};
use crate::connection::Connection;
use crate::connection::context::Context;
use crate::producer::largest_batch;
use crate::producer::size_limits::SizeLimits;

/// The timeout for reading the limits of a stream. A drain may wait for it.
const LIMITS_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct TransactionalProducer {
    connection: Arc<Connection>,
    settings: ClientConfig,
    context: Context,
    /// The limits of streams, as last read.
    limits: Mutex<HashMap<Arc<str>, SizeLimits>>,
    client: Mutex<Option<(SizeLimits, TransactionalClient)>>,
}

impl TransactionalProducer {
    /// Creates a producer. Does not connect yet.
    pub(crate) fn new(
        connection: &Arc<Connection>,
        transactional_id: &str,
        client_id: &str,
    ) -> Self {
        let mut settings = connection.common();
        settings::complete(&mut settings, &connection.config.producer, transactional_id);
        settings.set("client.id", client_id);
        Self {
            connection: connection.clone(),
            settings,
            context: connection.context(OPERATION),
            limits: Mutex::default(),
            client: Mutex::default(),
        }
    }

    /// Returns the size limits of a stream. Requests them from the broker if they are not known.
    pub(crate) async fn limits(&self, stream: &Arc<str>) -> SizeLimits {
        if let Some(known) = self.known_limits().get(stream) {
            return *known;
        }
        let asked = largest_batch(&self.connection, stream);
        let Ok(largest) = timeout(LIMITS_TIMEOUT, asked).await else {
            return SizeLimits::new(None);
        };
        let limits = SizeLimits::new(largest);
        self.known_limits().insert(stream.clone(), limits);
        limits
    }

    /// Stores a transaction as a whole, or nothing. Blocks.
    pub(crate) fn publish(&self, transaction: &Transaction) -> Result<(), NotPublished> {
        let mut open = self.lock();
        let fits = |(limits, _): &(SizeLimits, _)| *limits == transaction.limits;
        // The earlier client must be dropped before its successor is opened, which would fence it.
        let client = open.take().filter(fits);
        let mut client = match client {
            Some((_, client)) => client,
            None => self
                .open(transaction.limits)
                .map_err(|error| NotPublished {
                    error: without_record(error),
                    member_is_gone: false,
                })?,
        };
        let published = client.publish(transaction);
        if !client.is_broken() {
            *open = Some((transaction.limits, client));
        }
        if let Err(failed) = &published {
            if failed.error.kind() == ErrorKind::TooLarge {
                // The topic's configuration may have changed.
                self.known_limits().remove(&transaction.stream);
            }
        }
        published
    }

    /// Aborts the transaction that an earlier producer of the same transactional id has left open. Blocks.
    pub(crate) fn abort_earlier(&self) {
        let mut client = self.lock();
        if client.is_none() {
            let limits = SizeLimits::new(None);
            // A producer without permission to use this id has left no transaction open.
            *client = self.open(limits).ok().map(|client| (limits, client));
        }
    }

    fn open(&self, limits: SizeLimits) -> Result<TransactionalClient> {
        let (mut settings, context) = self.context.successor(&self.settings);
        settings::of_stream(&mut settings, limits.message_max);
        TransactionalClient::open(&settings, context)
    }

    /// Closes the client when the transaction in flight has ended. Blocks.
    pub(crate) fn close(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<(SizeLimits, TransactionalClient)>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_limits(&self) -> MutexGuard<'_, HashMap<Arc<str>, SizeLimits>> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
