//! The names of events are public, and failures that no call can report are logged.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Metadata, Subscriber};

use super::fake::Fake;
use super::{ONE, send};
use crate::ErrorKind::{Denied, Throttled};

/// Collects the last part of each event's name, with its number of records.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(&'static str, u64)>>>);

impl Log {
    /// Subscribes on this thread until the guard is dropped.
    ///
    /// The second dispatcher receives nothing. But while there is only one, `tracing` asks the thread that first
    /// reaches an event whether it is enabled, and that may be the thread of another test.
    fn listen(&self) -> (DefaultGuard, Dispatch) {
        let guard = tracing::subscriber::set_default(self.clone());
        (guard, Dispatch::new(self.clone()))
    }

    fn take(&self) -> Vec<(&'static str, u64)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Records(u64);

impl Visit for Records {
    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "records" {
            self.0 = value;
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("millstream::")
    }

    fn event(&self, event: &Event<'_>) {
        let name = event.metadata().name();
        let name = name.strip_prefix("millstream.producer.").unwrap_or(name);
        let mut records = Records(0);
        event.record(&mut records);
        self.0.lock().unwrap().push((name, records.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn every_step_of_a_producer_has_its_name() {
    let log = Log::default();
    let _listening = log.listen();
    let fake = Fake::new(ONE);
    fake.fail("1", [Throttled]);
    for name in ["2", "3", "4"] {
        fake.fail(name, [Denied]);
    }
    let producer = fake.builder().open().await.unwrap();
    for name in ["1", "2", "3"] {
        drop(send(&producer, "a", name).await);
    }
    producer.flush().await.unwrap_err();
    let late = send(&producer, "a", "4").await;
    send(&producer, "a", "panic").await.await.unwrap_err();
    let stuck = send(&producer, "b", "stuck").await;
    producer.close().await.unwrap_err();
    let expected = [
        ("opened", 0),
        ("retried", 3),
        ("failed", 1),
        ("retried", 1),
        ("failed", 2),
        ("panicked", 0),
        ("unsent", 1),
        ("closed", 0),
    ];
    assert_eq!(log.take(), expected);
    drop(producer);
    drop(late);
    assert_eq!(log.take(), [("failed", 1)], "nothing else reports it");
    drop(stuck);
    assert_eq!(
        log.take(),
        [("failed", 2)],
        "the first of them is logged already"
    );
}

#[test]
fn the_end_of_the_runtime_is_logged_with_its_loss() {
    let log = Log::default();
    let _listening = log.listen();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let producer = Fake::new(ONE).builder().open().await.unwrap();
        for name in ["stuck", "2", "3"] {
            drop(send(&producer, "a", name).await);
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(log.take(), [("opened", 0)]);
    runtime.shutdown_timeout(Duration::ZERO);
    let lost = log.take();
    assert_eq!(lost[0], ("unsent", 3), "{lost:?}");
}
