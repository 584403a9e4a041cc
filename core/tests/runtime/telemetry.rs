//! The names of the events are public: a dashboard must not lose them in an update.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fake::{Call, Script};
use millstream_core::driver::Event;
use millstream_core::{DeadLetter, Delivery, ErrorKind, Failure, OnExhausted, Retry};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Metadata, Subscriber};

/// Notes the names of all events of targets `millstream::*`.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<&'static str>>>);

impl Names {
    /// Listens on this thread until the guard is dropped.
    ///
    /// The second dispatcher receives nothing. But while there is only one, `tracing` asks the thread that is first at an event whether
    /// anybody listens, and that may be the thread of another test.
    fn listen(&self) -> (DefaultGuard, Dispatch) {
        let guard = tracing::subscriber::set_default(self.clone());
        (guard, Dispatch::new(self.clone()))
    }
}

impl Subscriber for Names {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("millstream::")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().unwrap().push(event.metadata().name());
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
async fn every_step_of_a_member_has_its_name() {
    let names = Names::default();
    let _listening = names.listen();
    let script = Script::new();
    let handler = |delivery: Delivery| async move {
        match delivery.key().map(|key| &key[..]) {
            Some(b"x") => Err("no"),
            _ => Ok(()),
        }
    };
    let retry = Retry::fixed(Duration::from_secs(1))
        .attempts(2)
        .then(OnExhausted::Skip);
    let run = script
        .client
        .group("g")
        .stream("s")
        .on_failure(retry)
        .run(handler, pending());
    let control = run.handle();
    let run = tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "ax");
    script.until_called(Call::Checkpoint("0".into(), 1)).await;
    script.revoke("0", 1, Duration::from_secs(1));
    script.until_called(Call::Release("0".into())).await;
    script.refuse_updates(&[ErrorKind::Unavailable, ErrorKind::Fenced]);
    script.assign("1", 1);
    script.records("1", 1, 0, "a");
    crate::fake::until(|| control.stats().lost == 1).await;
    script.assign("2", 1);
    script.emit(Event::Ended {
        partition: crate::fake::partition("2"),
        epoch: millstream_core::Epoch(1),
    });
    script.until_called(Call::Complete("2".into())).await;
    control.shutdown();
    run.await.unwrap().unwrap();
    assert_eq!(
        *names.0.lock().unwrap(),
        [
            "millstream.consumer.joined",
            "millstream.consumer.assigned",
            "millstream.consumer.retried",
            "millstream.consumer.skipped",
            "millstream.consumer.checkpointed",
            "millstream.consumer.revoking",
            "millstream.consumer.released",
            "millstream.consumer.assigned",
            "millstream.consumer.checkpoint_delayed",
            "millstream.consumer.fenced",
            "millstream.consumer.lost",
            "millstream.consumer.assigned",
            "millstream.consumer.completed",
            "millstream.consumer.closed",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_dropped_says_so() {
    let names = Names::default();
    let _listening = names.listen();
    let script = Script::new();
    let consumer = script.client.group("g").stream("s").join().await.unwrap();
    drop(consumer);
    crate::fake::until(|| {
        names
            .0
            .lock()
            .unwrap()
            .contains(&"millstream.consumer.dropped")
    })
    .await;
    assert!(
        !script.calls().contains(&Call::Leave),
        "a drop is a crash, not a leave"
    );
}

#[tokio::test(start_paused = true)]
async fn outages_are_warned_of_at_once() {
    let names = Names::default();
    let _listening = names.listen();
    let script = Script::new();
    *script.letters().latency.lock().unwrap() = Duration::from_secs(3_600);
    let run = script
        .client
        .group("g")
        .stream("s")
        .on_failure(Retry::none().then(DeadLetter::stream("dead")))
        .run(
            |delivery: Delivery| async move {
                match delivery.key().is_some_and(|key| key == "a") {
                    true => Err(Failure::unavailable("the database is down")),
                    false => Err(Failure::permanent("not JSON")),
                }
            },
            pending(),
        );
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let names = names.0.lock().unwrap().clone();
    for name in [
        "millstream.consumer.unavailable",
        "millstream.consumer.dead_letter_delayed",
    ] {
        assert_eq!(
            names.iter().filter(|seen| **seen == name).count(),
            1,
            "{name}: {names:?}"
        );
    }
}
