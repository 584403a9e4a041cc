//! The callbacks of a transactional client.

use std::error::Error as StdError;
use std::sync::{Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

use crate::connection::context::Context;

/// Wraps [`Context`], and keeps the first failed delivery of the current transaction.
pub(super) struct TransactionContext {
    base: Context,
    first_failure: Mutex<Option<KafkaError>>,
}

impl TransactionContext {
    pub(super) fn new(base: Context) -> Self {
        Self {
            base,
            first_failure: Mutex::default(),
        }
    }

    /// Takes the error of the first record that was not stored, if there is one.
    pub(super) fn take_failure(&self) -> Option<KafkaError> {
        let failure = self.first_failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for TransactionContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = Context::ENABLE_REFRESH_OAUTH_TOKEN;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.base.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.base.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn StdError>> {
        self.base.generate_oauth_token(config)
    }
}

impl ProducerContext for TransactionContext {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let failure = self.first_failure.lock();
            let mut failure = failure.unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| error.clone());
        }
    }
}
