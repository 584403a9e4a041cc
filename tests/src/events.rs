//! What the SDK tells by `tracing` in this process.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

/// The events of target `millstream`, from the first call of [`listen`](Self::listen) on: each as
/// its name and its fields, `name field=value ..`.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    /// Listens in the whole process.
    ///
    /// # Panics
    /// If somebody else does.
    pub fn listen() -> Self {
        static EVENTS: OnceLock<Events> = OnceLock::new();
        let told = EVENTS.get_or_init(|| {
            let told = Self::default();
            let set = tracing::subscriber::set_global_default(told.clone());
            set.expect("nobody else listens in a test's process");
            told
        });
        told.clone()
    }

    /// The events in which all of `words` occur.
    pub fn with(&self, words: &[&str]) -> Vec<String> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let with = told
            .iter()
            .filter(|event| words.iter().all(|word| event.contains(word)));
        with.cloned().collect()
    }
}

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "millstream"
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(event.metadata().name().to_owned());
        event.record(&mut text);
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.push(text.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // To a string nothing fails.
        let _ = write!(self.0, " {field}={value:?}");
    }
}
