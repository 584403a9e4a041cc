//! Handlers that compute leave other tasks of their thread their turn.

use std::future::{Future, pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

use millstream_core::{BatchFailure, ConsumerHandle, Delivery};
use tokio::task::yield_now;

use crate::desk::group;
use crate::fake::Script;

/// How long each handler computes. What is at least so long cannot make a test fail on a busy machine: the
/// burst of a member is over after fewer handlers.
const WORK: Duration = Duration::from_micros(50);

/// How many handlers a burst of 500 us has time for, and the one that is begun at its end.
const BURST: usize = 500 / 50 + 1;

const RECORDS: usize = 1_000;

/// Counts the handlers that have computed.
#[derive(Clone, Default)]
struct Computed(Arc<AtomicUsize>);

impl Computed {
    /// Keeps the thread busy, as parsing would.
    fn compute(&self) {
        let begun = Instant::now();
        while begun.elapsed() < WORK {
            std::hint::spin_loop();
        }
        self.0.fetch_add(1, Relaxed);
    }

    fn count(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Runs beside the member until all records are handled. Returns the most handlers that have computed
    /// between two turns of this task.
    ///
    /// It wakes itself at once, so it is due whenever a task has had its turn.
    async fn most_between_turns(&self) -> usize {
        let (mut before, mut most) = (0, 0);
        poll_fn(|cx| {
            let now = self.count();
            most = most.max(now - before);
            before = now;
            cx.waker().wake_by_ref();
            match now {
                RECORDS => Poll::Ready(most),
                _ => Poll::Pending,
            }
        })
        .await
    }
}

/// Sends the records, all of which are there when the first handler begins.
fn send(script: &Script) {
    script.assign("0", 1);
    script.records("0", 1, 0, &"-".repeat(RECORDS));
}

async fn within_a_minute(most: impl Future<Output = usize>) -> usize {
    let most = tokio::time::timeout(Duration::from_secs(60), most).await;
    most.expect("all records are handled")
}

fn assert_fair(most: usize, bound: usize) {
    assert!(
        most <= bound,
        "{most} handlers in one turn, {bound} are right"
    );
    assert!(most > 1, "the handlers do not run in bursts");
}

#[tokio::test]
async fn handlers_that_are_ready_at_once_leave_others_their_turn() {
    let (script, computed) = (Script::new(), Computed::default());
    let of_handler = computed.clone();
    let handler = move |_: Delivery| {
        of_handler.compute();
        async { Ok::<(), String>(()) }
    };
    tokio::spawn(group(&script).run(handler, pending()));
    send(&script);
    assert_fair(within_a_minute(computed.most_between_turns()).await, BURST);
}

/// They compute when the member polls what was not ready, and have a burst for that.
#[tokio::test]
async fn handlers_that_compute_after_a_wait_leave_others_their_turn() {
    let (script, computed) = (Script::new(), Computed::default());
    let of_handler = computed.clone();
    let handler = move |_: Delivery| {
        let computed = of_handler.clone();
        async move {
            yield_now().await;
            computed.compute();
            Ok::<(), String>(())
        }
    };
    tokio::spawn(group(&script).concurrency(1_000).run(handler, pending()));
    send(&script);
    assert_fair(within_a_minute(computed.most_between_turns()).await, BURST);
}

#[tokio::test]
async fn handlers_of_batches_leave_others_their_turn() {
    let (script, computed) = (Script::new(), Computed::default());
    let of_handler = computed.clone();
    let handler = move |_: Vec<Delivery>| {
        of_handler.compute();
        async { Ok::<(), BatchFailure>(()) }
    };
    tokio::spawn(group(&script).run_batches(1, handler, pending()));
    send(&script);
    assert_fair(within_a_minute(computed.most_between_turns()).await, BURST);
}

/// The application computes between two pulls.
#[tokio::test]
async fn a_loop_of_pulls_leaves_others_their_turn() {
    let (script, computed) = (Script::new(), Computed::default());
    let of_loop = computed.clone();
    let mut consumer = group(&script).concurrency(1_000).join().await.unwrap();
    let control: ConsumerHandle = consumer.handle();
    let pulls = tokio::spawn(async move {
        while let Some(delivery) = consumer.next().await.unwrap() {
            of_loop.compute();
            delivery.ack();
        }
    });
    send(&script);
    let most = within_a_minute(computed.most_between_turns()).await;
    control.shutdown();
    pulls.await.unwrap();
    assert_fair(most, PULLS);
}

/// The budget of a task of tokio, which each pull takes a part of.
const PULLS: usize = 128;
