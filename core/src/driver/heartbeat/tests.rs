use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::sync::lock;

const PATIENCE: Duration = Duration::from_secs(20);

/// The behavior of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    Renews,
    Forgets,
    Hangs,
    IsDown,
    IsGone,
    Panics,
}

/// A member of a store whose responses the test sets.
#[derive(Debug)]
struct FakeMember {
    store: Mutex<Store>,
    beats: AtomicUsize,
    in_flight: AtomicUsize,
    /// The reports of the thread, with their times.
    reports: Mutex<Sender<(&'static str, Instant)>>,
}

impl FakeMember {
    fn new() -> (Arc<Self>, Receiver<(&'static str, Instant)>) {
        let (reports, reported) = channel();
        let member = Self {
            store: Mutex::new(Store::Renews),
            beats: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            reports: Mutex::new(reports),
        };
        (Arc::new(member), reported)
    }

    fn store(&self, store: Store) {
        *lock(&self.store) = store;
    }

    fn report(&self, what: &'static str) {
        // The test may have ended.
        let _ = lock(&self.reports).send((what, Instant::now()));
    }

    async fn request(&self) -> Result<HeartbeatResponse> {
        let error = |kind| Err(Error::new(kind, "heartbeat", "injected"));
        let store = *lock(&self.store);
        match store {
            Store::Renews => Ok(HeartbeatResponse::Renewed),
            Store::Forgets => Ok(HeartbeatResponse::UnknownMember),
            Store::Hangs => std::future::pending().await,
            Store::IsDown => error(ErrorKind::Unavailable),
            Store::IsGone => error(ErrorKind::NotFound),
            Store::Panics => panic!("injected"),
        }
    }
}

struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[async_trait]
impl HeartbeatMember for FakeMember {
    async fn heartbeat(&self) -> Result<HeartbeatResponse> {
        let _in_flight = InFlight::new(&self.in_flight);
        self.beats.fetch_add(1, SeqCst);
        self.request().await
    }

    async fn rejoin(&self) -> Result<()> {
        self.report("rejoin");
        self.request().await.map(drop)
    }

    fn lost(&self) {
        self.report("lost");
    }

    fn failed(&self, error: Error) {
        self.report(error.kind().as_str());
    }
}

fn spawn(member: &Arc<FakeMember>, timeout: Duration) -> HeartbeatThread {
    let options = SessionOptions {
        timeout,
        heartbeat_interval: Duration::from_millis(10),
    };
    HeartbeatThread::spawn("heartbeats", options, Instant::now(), member.clone()).unwrap()
}

fn wait_for_beats(member: &FakeMember, count: usize) {
    let (deadline, before) = (Instant::now() + PATIENCE, member.beats.load(SeqCst));
    while member.beats.load(SeqCst) < before + count {
        assert!(Instant::now() < deadline, "the heartbeats have stopped");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the thread has dropped the member, which it owns as long as it runs.
async fn wait_for_the_end(member: &Arc<FakeMember>) {
    let deadline = Instant::now() + PATIENCE;
    while Arc::strong_count(member) > 1 {
        assert!(Instant::now() < deadline, "the thread has not ended");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn next(reported: &Receiver<(&'static str, Instant)>) -> (&'static str, Instant) {
    reported.recv_timeout(PATIENCE).unwrap()
}

#[tokio::test]
async fn heartbeats_go_on_while_the_runtime_is_blocked() {
    let (member, reported) = FakeMember::new();
    let heartbeats = spawn(&member, Duration::from_secs(60));
    // Blocks the only thread of this runtime.
    wait_for_beats(&member, 10);
    heartbeats.stop().await;
    assert!(reported.try_recv().is_err());
}

#[tokio::test]
async fn no_heartbeat_follows_a_stop() {
    let (member, _reported) = FakeMember::new();
    let heartbeats = spawn(&member, Duration::from_secs(60));
    wait_for_beats(&member, 1);
    member.store(Store::Hangs);
    wait_for_beats(&member, 1);
    heartbeats.stop().await;
    assert_eq!(member.in_flight.load(SeqCst), 0);
    wait_for_the_end(&member).await;
}

#[tokio::test]
async fn a_member_that_is_cut_off_loses_all_in_time_and_joins_again() {
    let timeout = Duration::from_secs(1);
    for cut in [Store::Hangs, Store::IsDown] {
        let (member, reported) = FakeMember::new();
        let heartbeats = spawn(&member, timeout);
        wait_for_beats(&member, 2);
        member.store(cut);
        let cut_at = Instant::now();
        let (report, at) = next(&reported);
        assert_eq!(report, "lost");
        // One session after the last heartbeat before the cut, plus delays of a busy machine.
        let within = cut_at + timeout / 2..cut_at + timeout * 3;
        assert!(within.contains(&at), "{:?}", at - cut_at);
        assert_eq!(next(&reported).0, "rejoin");
        assert_eq!(next(&reported).0, "rejoin", "it is repeated");
        member.store(Store::Renews);
        wait_for_beats(&member, 3);
        heartbeats.stop().await;
        let rest: Vec<_> = reported.try_iter().map(|(report, _)| report).collect();
        assert!(!rest.contains(&"lost"), "it has nothing to lose: {rest:?}");
    }
}

#[tokio::test]
async fn a_forgotten_member_loses_all_at_once_and_joins_again() {
    let (member, reported) = FakeMember::new();
    let _heartbeats = spawn(&member, Duration::from_secs(60));
    wait_for_beats(&member, 1);
    member.store(Store::Forgets);
    assert_eq!(next(&reported).0, "lost");
    assert_eq!(next(&reported).0, "rejoin");
}

#[tokio::test]
async fn an_error_that_lasts_ends_the_membership() {
    for (store, kind) in [(Store::IsGone, "not_found"), (Store::Panics, "closed")] {
        let (member, reported) = FakeMember::new();
        let heartbeats = spawn(&member, Duration::from_secs(60));
        wait_for_beats(&member, 1);
        member.store(store);
        assert_eq!(next(&reported).0, "lost");
        assert_eq!(next(&reported).0, kind);
        // It has already ended by itself.
        heartbeats.stop().await;
        assert!(reported.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_dropped_handle_stops_the_heartbeats() {
    let (member, _reported) = FakeMember::new();
    drop(spawn(&member, Duration::from_secs(60)));
    wait_for_the_end(&member).await;
}
