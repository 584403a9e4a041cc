use std::time::Duration;

use millstream_core::{ErrorKind, Record};
use millstream_memory::{FaultScript, Target};

use crate::fixture::{Fixture, SESSION, partition, record};

const SECOND: Duration = Duration::from_secs(1);

async fn kinds(fixture: &Fixture, records: &[&str]) -> Vec<Option<ErrorKind>> {
    let records: Vec<Record> = records.iter().map(|text| record(text)).collect();
    let results = fixture.producer("s").await.send(records).await;
    results
        .into_iter()
        .map(|result| result.err().map(|rejected| rejected.error.kind()))
        .collect()
}

async fn payloads(fixture: &Fixture) -> Vec<String> {
    let mut member = fixture.join_with("reader", "r", |_| {}).await;
    member.settle().await;
    member.payloads
}

#[tokio::test(start_paused = true)]
async fn sends_fail_by_count_and_hold_their_key_back() {
    let fixture = Fixture::with_stream(1).await;
    kinds(&fixture, &["z=before"]).await;
    let script = FaultScript::new()
        .fail_sends(2..=2, ErrorKind::Denied)
        .time_out_sends(5..=5);
    fixture.memory.faults().run(&script).unwrap();
    let results = kinds(&fixture, &["a=1", "b=1", "b=2", "a=2", "c=1", "c=2"]).await;
    let expected = [
        None,
        Some(ErrorKind::Denied),
        Some(ErrorKind::Unavailable),
        None,
        Some(ErrorKind::Timeout),
        Some(ErrorKind::Unavailable),
    ];
    assert_eq!(results, expected);
    assert_eq!(payloads(&fixture).await, ["before", "1", "2", "1"]);
}

#[tokio::test(start_paused = true)]
async fn sends_are_delayed_and_throttled() {
    let fixture = Fixture::with_stream(1).await;
    let faults = fixture.memory.faults();
    faults.delay_sends(1, SECOND * 3);
    let started = tokio::time::Instant::now();
    assert_eq!(kinds(&fixture, &["a=1"]).await, [None]);
    assert_eq!(started.elapsed(), SECOND * 3);
    faults.throttle(SECOND);
    assert_eq!(
        kinds(&fixture, &["a=2"]).await,
        [Some(ErrorKind::Throttled)]
    );
    tokio::time::advance(SECOND).await;
    assert_eq!(kinds(&fixture, &["a=2"]).await, [None]);
    faults.fail_sends(5, ErrorKind::Unavailable);
    faults.clear();
    assert_eq!(kinds(&fixture, &["a=3"]).await, [None]);
}

#[tokio::test(start_paused = true)]
async fn chance_follows_the_seed() {
    let run = |seed| async move {
        let fixture = Fixture::with(|config| config.seed = seed);
        fixture.create("s", 1).await;
        let script = FaultScript::new().fail_one_in(3, ErrorKind::Unavailable);
        fixture.memory.faults().run(&script).unwrap();
        kinds(&fixture, &["x"; 60]).await
    };
    let first = run(1).await;
    assert_eq!(first, run(1).await);
    assert_ne!(first, run(2).await);
    let failed = first.iter().flatten().count();
    assert!((10..=30).contains(&failed), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn checkpoints_are_lost_with_or_without_effect() {
    let fixture = Fixture::with_stream(1).await;
    fixture.fill(1, 10).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let epoch = member.epoch(0);
    let script = FaultScript::new()
        .lose_checkpoints(1..=1)
        .lose_checkpoint_responses(2..=2);
    fixture.memory.faults().run(&script).unwrap();
    assert_eq!(
        member.checkpoint(0, epoch, 3).await,
        Err(ErrorKind::Unavailable)
    );
    assert_eq!(fixture.progress("g").await[0].position, None);
    assert_eq!(
        member.checkpoint(0, epoch, 4).await,
        Err(ErrorKind::Unavailable)
    );
    assert_eq!(fixture.progress("g").await[0].position, Some(4.into()));
    assert_eq!(member.checkpoint(0, epoch, 5).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn scripted_faults_hit_members_in_time() {
    let fixture = Fixture::with_stream(2).await;
    let mut a = fixture.join("a").await;
    let mut b = fixture.join("b").await;
    a.settle().await;
    b.settle().await;
    let stolen = a.owned.keys().next().unwrap().clone();
    let script = FaultScript::new()
        .steal(SECOND, "g", &stolen)
        .crash(SECOND * 2, Target::nth(2))
        .crash(SECOND * 3, Target::named("nobody"));
    fixture.memory.faults().run(&script).unwrap();
    // No other call is made: the waiting member wakes when the fault is due.
    let started = tokio::time::Instant::now();
    a.membership.next().await.unwrap();
    assert_eq!(started.elapsed(), SECOND);
    let error = loop {
        if let Err(error) = b.membership.next().await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(started.elapsed(), SECOND * 2);
    tokio::time::advance(SESSION).await;
    a.settle().await;
    assert_eq!(a.owned.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn contradictions_and_unknown_targets_are_refused() {
    let fixture = Fixture::with_stream(1).await;
    let faults = fixture.memory.faults();
    let script = FaultScript::new()
        .fail_sends(1..=2, ErrorKind::Denied)
        .delay_sends(2..=3, SECOND);
    assert_eq!(faults.run(&script).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(
        kinds(&fixture, &["a=1"]).await,
        [None],
        "a refused script does nothing"
    );
    let kind = |result: millstream_core::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(faults.crash(&Target::nth(1))), ErrorKind::NotFound);
    assert_eq!(kind(faults.steal("g", &partition(0))), ErrorKind::NotFound);
}
