//! Polling while enhanced fan-out is refused.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use millstream_core::ErrorKind;
use tokio::time::sleep;

use super::super::stream_consumer::{Attempts, RETRY, StreamConsumer};
use super::super::{ReadEvent, ResumePoint, RetrievalMode, Settings};
use super::fake::{Fake, Request, iterator};
use super::registry::Registry;
use super::{Run, ago, for_each_seed, latest, position, run_with, secs, settings};
use crate::log_lines::LogLines;

const SUBSCRIBE: fn(&Request) -> bool = |request| matches!(request, Request::Subscribe(_));
const POLL: fn(&Request) -> bool = |request| *request == Request::Records;

const REFUSED: &str = "millstream.kinesis.fan_out.refused";
const RESTORED: &str = "millstream.kinesis.fan_out.restored";

fn run(fake: &Arc<Fake>, consumer: &Arc<StreamConsumer>, begin: ResumePoint) -> Run {
    run_with(
        fake,
        Settings {
            mode: RetrievalMode::FanOut(consumer.clone()),
            ..settings(begin)
        },
    )
}

/// Returns the number of warnings about a refusal, and of reports that it is over.
fn reports(log: &LogLines) -> (usize, usize) {
    let refused = log.of(REFUSED);
    let warnings = refused.iter().filter(|line| line.contains("WARN"));
    (warnings.count(), log.of(RESTORED).len())
}

#[tokio::test(start_paused = true)]
async fn a_refused_registration_is_repeated_for_all_readers_together() {
    let log = LogLines::record();
    let registry = Registry::failing([ErrorKind::Throttled, ErrorKind::Denied]);
    let consumer = registry.consumer(true).expect("readers poll instead");
    let fakes = [(); 3].map(|()| Fake::new(1..=20));
    let mut runs: Vec<_> = fakes
        .iter()
        .map(|fake| run(fake, &consumer, ResumePoint::Earliest))
        .collect();
    for (fake, run) in fakes.iter().zip(&mut runs) {
        run.expect(1..=20).await;
        assert!(fake.times(SUBSCRIBE).is_empty(), "it is refused");
        assert!(!fake.times(POLL).is_empty(), "it is polled");
    }
    assert_eq!(reports(&log), (1, 0));
    sleep(3 * RETRY).await;

    let attempts = registry.attempts();
    let kinds: Vec<_> = attempts.iter().map(|(_, attempts)| *attempts).collect();
    assert_eq!(kinds, [Attempts::Many, Attempts::One, Attempts::One]);
    let gaps = attempts.windows(2).map(|pair| pair[1].0 - pair[0].0);
    for gap in gaps {
        let least = RETRY.mul_f64(0.74);
        assert!(gap >= least, "registered again after {gap:?}");
    }
    assert_eq!(reports(&log), (1, 1));
    for (fake, run) in fakes.iter().zip(&mut runs) {
        let polls = fake.times(POLL).len();
        fake.store(21..=25);
        run.expect(21..=25).await;
        run.expect_nothing(secs(1_000)).await;
        assert_eq!(fake.times(POLL).len(), polls, "it is pushed again");
    }
    assert_eq!(reports(&log), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refused_subscription_is_repeated() {
    let log = LogLines::record();
    let registry = Arc::new(Registry::default());
    let consumer = registry.consumer(true).expect("it is registered");
    let fake = Fake::new(1..=20);
    fake.lock().subscribe_faults = [ErrorKind::Denied; 2].into();
    let mut run = run(&fake, &consumer, ResumePoint::Earliest);
    run.expect(1..=20).await;
    assert!(!fake.times(POLL).is_empty(), "it is polled");
    sleep(2 * RETRY + RETRY).await;
    fake.store(21..=25);
    run.expect(21..=25).await;
    let subscribed = fake.times(SUBSCRIBE).len();
    assert!(subscribed >= 3, "it subscribed {subscribed} times");
    assert_eq!(reports(&log), (1, 1), "two refusals in a row are one");

    // A later refusal is another one.
    {
        let mut inner = fake.lock();
        inner.push_faults = [ErrorKind::Unavailable].into();
        inner.subscribe_faults = [ErrorKind::Denied].into();
    }
    sleep(2 * RETRY).await;
    fake.store(26..=30);
    run.expect(26..=30).await;
    assert_eq!(reports(&log), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_the_setting_is_an_error() {
    let fake = Fake::new(1..=25);
    fake.lock().subscribe_faults = [ErrorKind::Denied].into();
    let registry = Arc::new(Registry::default());
    let consumer = registry.consumer(false).expect("it is registered");
    match run(&fake, &consumer, ResumePoint::Earliest).next().await {
        ReadEvent::Failed(error) => assert_eq!(error.kind(), ErrorKind::Denied),
        event => panic!("{event:?}"),
    }
    let denied = Registry::failing([ErrorKind::Denied]).consumer(false);
    assert_eq!(denied.expect_err("it is refused").kind(), ErrorKind::Denied);
}

#[tokio::test(start_paused = true)]
async fn only_a_refusal_is_a_reason_to_poll() {
    for (kind, polls) in [
        (ErrorKind::Denied, true),
        (ErrorKind::Throttled, true),
        (ErrorKind::NotFound, false),
        (ErrorKind::Invalid, false),
        (ErrorKind::Timeout, false),
        (ErrorKind::Unavailable, false),
        (ErrorKind::Unauthenticated, false),
    ] {
        let consumer = Registry::failing([kind]).consumer(true);
        match consumer {
            Ok(consumer) => assert!(polls && consumer.arn().is_none(), "{kind:?}"),
            Err(error) => assert!(!polls && error.kind() == kind, "{kind:?}: {error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_gone_does_not_register() {
    let registry = Registry::failing([ErrorKind::Denied; 100]);
    let consumer = registry.consumer(true).expect("readers poll instead");
    sleep(2 * RETRY).await;
    let attempts = registry.attempts().len();
    assert!(attempts > 1, "it tries again");
    drop(consumer);
    sleep(10 * RETRY).await;
    assert_eq!(registry.attempts().len(), attempts);
}

/// Reads a shard while enhanced fan-out is refused and accepted in turns.
async fn changes(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let refused = |rng: &mut Rng| [ErrorKind::Denied; 3].into_iter().take(rng.usize(0..3));
    let registry = Registry::failing(refused(&mut rng));
    let consumer = registry.consumer(true).expect("readers poll instead");
    let mut stored = 20;
    let fake = Fake::new(1..=stored);
    for raw in &mut fake.lock().records {
        raw.arrival = Some(ago(30));
    }
    let pinned = rng.bool();
    let mut next = if pinned { 21 } else { rng.u64(1..=20) };
    let begin = match next {
        1 => ResumePoint::Earliest,
        _ if pinned => latest(iterator(20), ago(rng.u64(0..20))),
        _ => ResumePoint::After(position(&(next - 1).to_string())),
    };
    let mut run = run(&fake, &consumer, begin);
    for _ in 0..10 {
        {
            let mut inner = fake.lock();
            inner.subscribe_faults = refused(&mut rng).collect();
            if rng.bool() {
                // The subscription ends, and the next one is refused.
                inner.push_faults = [ErrorKind::Unavailable].into();
            }
        }
        registry
            .faults
            .lock()
            .expect("no test panics here")
            .extend(refused(&mut rng));
        sleep(Duration::from_millis(rng.u64(0..400_000))).await;
        let more = rng.u64(0..25);
        fake.store(stored + 1..=stored + more);
        stored += more;
        let until = rng.u64(next..=stored + 1);
        run.expect(next..until).await;
        next = until;
    }
    run.expect(next..=stored).await;
    run.expect_nothing(secs(600)).await;
}

#[test]
fn no_record_is_lost_or_repeated_when_the_mode_changes() {
    for_each_seed(changes);
}
