//! The threads of clients in this process, as the kernel lists them.
//!
//! They are the only sign that a dropped client has ended: it does so on its own threads.

use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// Dropped objects end well within this time while their broker responds, on a busy machine too.
const IN_TIME: Duration = Duration::from_secs(20);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Threads by their ids, with their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Threads(BTreeMap<u32, String>);

impl Threads {
    /// Returns the threads of librdkafka, and the backend's threads around it.
    pub(crate) fn of_clients() -> Self {
        let all = fs::read_dir("/proc/self/task").expect("Linux lists the threads of a process");
        let threads = all.filter_map(|thread| {
            let thread = thread.ok()?;
            let id = thread.file_name().to_str()?.parse().ok()?;
            // A thread that has ended meanwhile has no name.
            let name = fs::read_to_string(thread.path().join("comm")).ok()?;
            let of_client = name.starts_with("rdk:") || name.starts_with("kafka-");
            of_client.then(|| (id, name.trim().to_owned()))
        });
        Self(threads.collect())
    }

    /// Returns the threads that are in this set and not in `other`.
    pub(crate) fn without(mut self, other: &Self) -> Self {
        self.0.retain(|id, _| !other.0.contains_key(id));
        self
    }

    /// Waits until only these threads are left, and returns how long that took.
    pub(crate) async fn are_all(&self, within: Duration) -> Duration {
        ended(within, || Self::of_clients().without(self)).await
    }

    /// Waits until none of these threads is left, and returns how long that took.
    pub(crate) async fn have_ended(&self, within: Duration) -> Duration {
        ended(within, || {
            let mut left = Self::of_clients();
            left.0.retain(|id, _| self.0.contains_key(id));
            left
        })
        .await
    }
}

async fn ended(within: Duration, left: impl Fn() -> Threads) -> Duration {
    let begun = Instant::now();
    loop {
        let left = left();
        if left == Threads::default() {
            return begun.elapsed();
        }
        assert!(
            begun.elapsed() < within,
            "after {within:?} there still are {left:?}"
        );
        sleep(POLL_INTERVAL).await;
    }
}

/// Runs an action that must not hang, on a thread that may.
pub(crate) fn in_time(what: &str, act: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        act();
        // Nobody waits any more for an action that was too late.
        let _ = done.send(());
    });
    let waited = is_done.recv_timeout(IN_TIME);
    assert!(waited.is_ok(), "{what} has not ended after {IN_TIME:?}");
}

/// Drops a value, which must not block.
pub(crate) fn drop_at_once<T>(what: &str, dropped: T) {
    // A drop that waits for a broker or for the end of a thread takes longer.
    const AT_ONCE: Duration = Duration::from_millis(500);
    let begun = Instant::now();
    drop(dropped);
    let took = begun.elapsed();
    assert!(took < AT_ONCE, "the drop of {what} took {took:?}");
}
