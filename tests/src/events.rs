//! Captures the SDK's `tracing` events of all threads of this process.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

/// The events of targets `millstream::*`, from the first call of [`listen`](Self::listen) on.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Mutex<Vec<Event>>>);

/// An event, with its fields as text.
#[derive(Debug, Clone)]
pub struct Event {
    name: &'static str,
    fields: BTreeMap<&'static str, String>,
}

impl Event {
    /// Returns the value of a field, if it is there.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// Returns whether a field has this value.
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.field(name) == Some(value)
    }
}

impl Events {
    /// Listens in the whole process, because clients emit events on their own threads.
    ///
    /// # Panics
    /// If another subscriber is installed.
    pub fn listen() -> Self {
        static EVENTS: OnceLock<Events> = OnceLock::new();
        let events = EVENTS.get_or_init(|| {
            let events = Self::default();
            let set = tracing::subscriber::set_global_default(events.clone());
            set.expect("nobody else listens in a test's process");
            events
        });
        events.clone()
    }

    /// Returns the events with this name and a field with this value.
    pub fn with(&self, name: &str, field: &str, value: &str) -> Vec<Event> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let with = events
            .iter()
            .filter(|event| event.name == name && event.has(field, value));
        with.cloned().collect()
    }
}

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("millstream::")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut captured = Event {
            name: event.metadata().name(),
            fields: BTreeMap::new(),
        };
        event.record(&mut captured);
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(captured);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Visit for Event {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}
