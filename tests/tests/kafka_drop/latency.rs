//! The reaction times of members when others wait for them. Most of several attempts must be quick: a
//! busy machine may delay some.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conformance::Events;
use conformance::kafka::RequestKind;
use millstream_core::{Client, Consumer};

use crate::fixture::{Fixture, KEYS, PARTITIONS, QUICK, pull, send, stream, unique, until};

/// The number of attempts, most of which must be quick.
const ATTEMPTS: usize = 5;

/// The interval of librdkafka between two joins, and of this backend between two attempts at a checkpoint that
/// was rejected because of a new generation that does not arrive.
const MAX_LATENCY: Duration = Duration::from_secs(1);

/// Returns a client, and the id by which the testbed identifies its member.
async fn client(fixture: &Fixture, heartbeat: Duration) -> (String, Client) {
    let id = unique("member");
    let client = fixture.client_of(id.clone(), heartbeat).await;
    (id, client)
}

async fn join(client: &Client, group: &str, stream: &str) -> Consumer {
    let group = client.group(group).stream(stream);
    let group = group.checkpoint_interval(Duration::from_millis(10));
    group.join().await.expect("it joins")
}

async fn owns(consumer: &Consumer, partitions: usize) {
    let control = consumer.handle();
    until("the partitions are shared", || {
        control.partitions().len() == partitions
    })
    .await;
}

/// Returns the median.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Returns the longest time between two consecutive instants.
fn longest(times: &[Instant]) -> Duration {
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().expect("there are two at least")
}

/// Without this backend's wake-ups, librdkafka is awake three times too rarely for that many heartbeats in that time.
pub(crate) async fn heartbeats(fixture: Arc<Fixture>) {
    const EVERY: Duration = Duration::from_millis(100);
    const COUNT: usize = 20;
    let within = 2 * EVERY * COUNT as u32;
    let (id, client) = client(&fixture, EVERY).await;
    let stream = stream(&client, 0).await;
    let consumer = join(&client, &unique("group"), &stream).await;
    owns(&consumer, PARTITIONS).await;

    let spans = || {
        let heartbeat = fixture.testbed.request_times(&id, RequestKind::Heartbeat);
        let spans = heartbeat.windows(COUNT + 1).map(|all| all[COUNT] - all[0]);
        spans.collect::<Vec<_>>()
    };
    until("heartbeats come in time", || {
        spans().iter().any(|span| *span < within)
    })
    .await;
    println!("{COUNT} heartbeats took {:?}", spans());
    consumer.close().await.expect("it closes");
}

/// A joining member revokes nothing, and so must join the second round as soon as that begins.
pub(crate) async fn rounds(fixture: Arc<Fixture>) {
    let (_, first) = client(&fixture, QUICK).await;
    let (stream, group) = (stream(&first, 0).await, unique("group"));
    let first = join(&first, &group, &stream).await;
    let mut took = Vec::new();
    for _ in 0..ATTEMPTS {
        owns(&first, PARTITIONS).await;
        let (id, newcomer) = client(&fixture, QUICK).await;
        let newcomer = join(&newcomer, &group, &stream).await;
        owns(&newcomer, 1).await;
        took.push(longest(
            &fixture.testbed.request_times(&id, RequestKind::Join),
        ));
        newcomer.close().await.expect("it closes");
    }
    println!("between two joins: {took:?}");
    assert!(median(took) < MAX_LATENCY);
    first.close().await.expect("it closes");
}

fn assert_no_delay(group: &str) {
    let delays = Events::listen().with("millstream.consumer.checkpoint_delayed", "group", group);
    assert!(delays.is_empty(), "{delays:?}");
}

/// A checkpoint that was rejected because of a new generation is stored by the next attempt, without the runtime
/// noticing.
pub(crate) async fn refused(fixture: Arc<Fixture>) {
    let (id, client) = client(&fixture, QUICK).await;
    let (stream, group) = (stream(&client, 1).await, unique("group"));
    let mut consumer = join(&client, &group, &stream).await;
    let mut held = pull(&mut consumer, KEYS).await;
    let control = consumer.handle();
    let commits = || {
        fixture
            .testbed
            .request_times(&id, RequestKind::Commit)
            .len()
    };
    let (before, stored) = (commits(), control.stats().checkpoints);

    fixture.testbed.faults().refuse_commits(&group, 1);
    held.remove(0).ack();
    until("progress is stored", || {
        control.stats().checkpoints == stored + 1
    })
    .await;
    assert_eq!(fixture.testbed.faults().hits(&group), 1);
    assert_eq!(commits(), before + 2, "one was refused, one was stored");
    assert_no_delay(&group);
    held.into_iter().for_each(|held| held.ack());
    consumer.close().await.expect("it closes");
}

/// That attempt is made as soon as the next generation exists.
pub(crate) async fn between_generations(fixture: Arc<Fixture>) {
    // Late enough for a checkpoint to be rejected before.
    const HEARS: Duration = Duration::from_millis(500);
    let (id, client) = client(&fixture, HEARS).await;
    let (stream, group) = (stream(&client, 0).await, unique("group"));
    let mut consumer = join(&client, &group, &stream).await;
    let control = consumer.handle();
    let mut took = Vec::new();
    for attempt in 0..ATTEMPTS {
        owns(&consumer, PARTITIONS).await;
        send(&client, &stream, attempt..attempt + 1).await;
        let held = pull(&mut consumer, KEYS).await;
        let (newcomer_id, newcomer) = self::client(&fixture, QUICK).await;
        let (name, of) = (group.clone(), stream.clone());
        let newcomer = tokio::spawn(async move { join(&newcomer, &name, &of).await });
        until("the newcomer asks to be let in", || {
            !fixture
                .testbed
                .request_times(&newcomer_id, RequestKind::Join)
                .is_empty()
        })
        .await;
        let before = fixture
            .testbed
            .request_times(&id, RequestKind::Commit)
            .len();
        let stored = control.stats().checkpoints;
        fixture.testbed.faults().refuse_commits(&group, 1);
        held.into_iter().for_each(|held| held.ack());
        until("progress is stored", || {
            control.stats().checkpoints > stored
        })
        .await;
        took.push(fixture.testbed.request_times(&id, RequestKind::Commit)[before].elapsed());
        let newcomer = newcomer.await.expect("it does not panic");
        owns(&newcomer, 1).await;
        newcomer.close().await.expect("it closes");
    }
    println!("from the refusal on: {took:?}");
    assert!(median(took) < MAX_LATENCY);
    assert_eq!(fixture.testbed.faults().hits(&group), ATTEMPTS as u64);
    assert_no_delay(&group);
    consumer.close().await.expect("it closes");
}
