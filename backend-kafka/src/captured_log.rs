//! The log lines of a test.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt;

/// The events of this crate on the current thread, as lines of text. Dropping it ends the capture.
pub(crate) struct CapturedLog {
    lines: Lines,
    _subscribers: [DefaultGuard; 2],
}

impl CapturedLog {
    /// Captures the events of this level and above.
    pub(crate) fn new(level: &str) -> Self {
        // While there is only one subscriber, `tracing` asks the thread that first reaches an event whether it is
        // enabled, and that may be the thread of another test.
        let other = fmt().with_writer(io::sink).set_default();
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = fmt()
            .with_env_filter(format!("millstream::kafka={level}"))
            .with_writer(move || writer.clone());
        Self {
            lines,
            _subscribers: [subscriber.set_default(), other],
        }
    }

    /// Returns the lines so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap()
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
