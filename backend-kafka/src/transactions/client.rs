//! The transactional client of librdkafka.

use std::fmt;
use std::time::{Duration, Instant};

use millstream_core::Result;
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::producer::{Producer, ThreadedProducer};

use super::OPERATION;
use super::context::TransactionContext;
use super::failure::{
    Failed, NotPublished, aborted, is_fatal, is_retriable, outcome_unknown, retry,
};
use super::transaction::Transaction;
use crate::connection::context::Context;
use crate::error;
use crate::native::flush::flush;
use crate::native::record::produce_copies;

/// How long a transaction is retried while it can still be aborted.
const ABORTABLE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the result of a commit is requested, while it is not known whether the transaction is committed.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The timeout of one attempt of a retriable call.
const ATTEMPT: Duration = Duration::from_secs(1);

pub(super) struct TransactionalClient {
    producer: ThreadedProducer<TransactionContext>,
    /// Whether an error has made the client unusable. The next transaction then needs a new client.
    broken: bool,
}

impl fmt::Debug for TransactionalClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionalClient")
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl TransactionalClient {
    /// Opens a client. It fences an earlier client with the same transactional id and aborts that client's open
    /// transaction. Blocks.
    pub(super) fn open(settings: &ClientConfig, context: Context) -> Result<Self> {
        let context = TransactionContext::new(context);
        let producer = ThreadedProducer::from_config_and_context(settings, context)
            .map_err(|e| error::from(OPERATION, e))?;
        let deadline = Instant::now() + ABORTABLE_TIMEOUT;
        while let Err(failed) = producer.init_transactions(ATTEMPT) {
            if !is_retriable(&failed) || Instant::now() >= deadline {
                return Err(error::from(OPERATION, failed));
            }
        }
        Ok(Self {
            producer,
            broken: false,
        })
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Stores a transaction as a whole, or nothing. Blocks.
    pub(super) fn publish(&mut self, transaction: &Transaction) -> Result<(), NotPublished> {
        let deadline = Instant::now() + ABORTABLE_TIMEOUT;
        let filled = self.fill(transaction, deadline);
        match filled.and_then(|()| self.commit()) {
            Ok(()) => Ok(()),
            Err(failed) => Err(self.abort(failed)),
        }
    }

    fn fill(&self, transaction: &Transaction, deadline: Instant) -> Result<(), Failed> {
        self.producer.context().take_failure();
        self.producer.begin_transaction()?;
        produce_copies(&self.producer, &transaction.stream, &transaction.records)?;
        retry(deadline, || {
            self.producer.send_offsets_to_transaction(
                &transaction.offsets,
                &transaction.member,
                ATTEMPT,
            )
        })?;
        // The commit would wait for the records too, but once it has begun, nothing can be aborted.
        Ok(flush(&self.producer, ABORTABLE_TIMEOUT)?)
    }

    /// Commits, and retries until it is known whether the transaction is committed.
    fn commit(&self) -> Result<(), Failed> {
        let deadline = Instant::now() + COMMIT_TIMEOUT;
        retry(deadline, || self.producer.commit_transaction(ATTEMPT)).map_err(|failed| Failed {
            // The failed call was retriable, so it has begun and may have succeeded.
            uncertain: is_retriable(&failed.error),
            ..failed
        })
    }

    /// Makes sure that a failed transaction is not committed, or reports that its outcome is unknown.
    fn abort(&mut self, failed: Failed) -> NotPublished {
        if failed.uncertain {
            self.broken = true;
            return outcome_unknown(failed);
        }
        // Must be read before the abort, which fails the records that are not sent yet.
        let record = self.producer.context().take_failure();
        let deadline = Instant::now() + ABORTABLE_TIMEOUT;
        // A client that cannot abort is dropped. Its transaction was not committed, and ends with the
        // next client of the same id or with the broker's timeout.
        self.broken = is_fatal(&failed.error)
            || retry(deadline, || self.producer.abort_transaction(ATTEMPT)).is_err();
        aborted(record, failed)
    }
}
