//! Brokers that are shared by name within the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::broker::Broker;
use crate::config::Config;
use crate::error::BrokerError;

/// A broker, with the settings that created it.
struct NamedBroker {
    broker: Weak<Broker>,
    config: Config,
}

static BROKERS: Mutex<BTreeMap<String, NamedBroker>> = Mutex::new(BTreeMap::new());

/// Returns the broker of a name, or creates it. The lock is held meanwhile, so that two callers get
/// one broker.
pub(crate) fn open(name: &str, config: &Config) -> Result<Arc<Broker>, BrokerError> {
    let mut brokers = BROKERS.lock().unwrap_or_else(PoisonError::into_inner);
    brokers.retain(|_, named| named.broker.strong_count() > 0);
    if let Some(named) = brokers.get(name) {
        if let Some(broker) = named.broker.upgrade() {
            return match named.config == *config {
                true => Ok(broker),
                false => Err(BrokerError::Setting(format!(
                    "name is {name:?}, which a broker with other settings has in this process: use \
                     the same settings or another name"
                ))),
            };
        }
    }
    let broker = Arc::new(Broker::new(config)?);
    let named = NamedBroker {
        broker: Arc::downgrade(&broker),
        config: config.clone(),
    };
    brokers.insert(name.to_owned(), named);
    Ok(broker)
}
