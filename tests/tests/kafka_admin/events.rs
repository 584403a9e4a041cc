//! What is told by `tracing` in this process, from whatever thread.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

/// An event of the Kafka backend, with its fields as they print.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) name: &'static str,
    pub(crate) fields: BTreeMap<&'static str, String>,
}

impl Told {
    pub(crate) fn has(&self, field: &str, value: &str) -> bool {
        self.fields.get(field).is_some_and(|told| told == value)
    }
}

static TOLD: Mutex<Vec<Told>> = Mutex::new(Vec::new());

/// Listens from now on. The clients of librdkafka tell on threads of their own, so the whole process
/// is listened to, all tests in it.
pub(crate) fn listen() {
    static LISTENING: OnceLock<()> = OnceLock::new();
    LISTENING.get_or_init(|| {
        tracing::subscriber::set_global_default(Listener).expect("nobody else listens");
    });
}

/// All that was told so far of this name.
pub(crate) fn told(name: &str) -> Vec<Told> {
    let told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    told.iter()
        .filter(|told| told.name == name)
        .cloned()
        .collect()
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "millstream" && metadata.name().starts_with("millstream.kafka.")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut told = Told {
            name: event.metadata().name(),
            ..Told::default()
        };
        event.record(&mut told);
        TOLD.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(told);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}
