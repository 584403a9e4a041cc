//! The transactional producer of one member, whose client is opened when it is first needed, or needed
//! again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use millstream_core::Result;
use rdkafka::ClientConfig;

use super::client::TransactionalClient;
use super::failure::{NotPublished, without_record};
use super::transaction::Transaction;
use super::{OPERATION, settings};
use crate::connection::Connection;
use crate::connection::context::Context;

#[derive(Debug)]
pub(crate) struct TransactionalProducer {
    settings: ClientConfig,
    context: Context,
    client: Mutex<Option<TransactionalClient>>,
}

impl TransactionalProducer {
    /// Connects to nothing yet.
    pub(crate) fn new(connection: &Connection, transactional_id: &str, client_id: &str) -> Self {
        let mut settings = connection.common();
        settings::complete(&mut settings, transactional_id);
        settings.set("client.id", client_id);
        Self {
            settings,
            context: connection.context(OPERATION),
            client: Mutex::default(),
        }
    }

    /// Stores a transaction as a whole, or nothing of it. Blocks.
    pub(crate) fn publish(&self, transaction: &Transaction) -> Result<(), NotPublished> {
        let mut open = self.lock();
        let mut client = match open.take() {
            Some(client) => client,
            None => self.open().map_err(|error| NotPublished {
                error: without_record(error),
                member_is_gone: false,
            })?,
        };
        let published = client.publish(transaction);
        if !client.is_broken() {
            *open = Some(client);
        }
        published
    }

    /// Aborts what an earlier producer of the same transactional id has left open. Blocks.
    pub(crate) fn abort_earlier(&self) {
        let mut client = self.lock();
        if client.is_none() {
            // Whoever may not publish by this id has left nothing open.
            *client = self.open().ok();
        }
    }

    fn open(&self) -> Result<TransactionalClient> {
        let (settings, context) = self.context.successor(&self.settings);
        TransactionalClient::open(&settings, context)
    }

    /// Closes the client when the transaction in flight has ended. Blocks.
    pub(crate) fn close(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<TransactionalClient>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
