//! The log lines of a test with one thread.

use std::any::Any;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt;

/// Records what is logged, until it is dropped.
pub(crate) struct LogLines {
    log: Log,
    /// Dropped in this order.
    _recording: [Box<dyn Any>; 2],
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogLines {
    pub(crate) fn record() -> Self {
        // With only one subscriber, `tracing` asks the first thread at an event whether the event is
        // enabled, and that may be the thread of another test.
        let other = fmt().with_writer(io::sink).set_default();
        let log = Log::default();
        let lines = log.clone();
        let recording = fmt()
            .with_env_filter("millstream::kinesis=debug")
            .with_writer(move || lines.clone())
            .set_default();
        Self {
            log,
            _recording: [Box::new(recording), Box::new(other)],
        }
    }

    /// Returns the lines of an event.
    pub(crate) fn of(&self, event: &str) -> Vec<String> {
        let text = String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap();
        let name = format!("event=\"{event}\"");
        let lines = text.lines().filter(|line| line.contains(&name));
        lines.map(str::to_owned).collect()
    }
}
