//! Failed fetches: a record that could not be read is never passed, and a truncated log ends the
//! member.

use std::sync::Arc;
use std::time::Duration;

use conformance::Events;
use conformance::kafka::Faults;
use millstream_core::{Client, Consumer, ErrorKind, Position};
use tokio::time::timeout;

use crate::drain::text;
use crate::fixture::{
    Fixture, KEYS, PARTITIONS, QUICK, TIMEOUT, pull, send, stream, unique, until,
};

/// An unspecific error of a broker: librdkafka reports it, and repeats the fetch.
const UNKNOWN_SERVER_ERROR: i16 = -1;

const OFFSET_OUT_OF_RANGE: i16 = 1;

/// The number of failed fetches for the same records. Between two of them librdkafka waits half a second, longer than
/// the member's interval between two checks of its positions.
const FAILURES: u64 = 4;

/// A member that has read and settled one record of each key.
struct Member {
    /// The client id, by which the faults identify its fetches.
    id: String,
    client: Client,
    stream: String,
    group: String,
    consumer: Consumer,
}

impl Member {
    async fn join(fixture: &Fixture) -> Self {
        let id = unique("member");
        let client = fixture.client_of(id.clone(), QUICK).await;
        let (stream, group) = (stream(&client, 1).await, unique("group"));
        let joining = client.group(&group).stream(stream.as_str());
        let joining = joining.checkpoint_interval(Duration::from_millis(10));
        let mut consumer = joining.join().await.expect("it joins");
        for delivery in pull(&mut consumer, KEYS).await {
            delivery.ack();
        }
        let member = Self {
            id,
            client,
            stream,
            group,
            consumer,
        };
        let handle = member.consumer.handle();
        until("all is stored", || {
            let partitions = handle.partitions();
            let settled = partitions.values().filter(|stats| stats.unsettled == 0);
            settled.count() == PARTITIONS
        })
        .await;
        member
    }

    async fn progress(&self) -> Vec<Option<Position>> {
        let checkpoints = self.client.group(&self.group).checkpoints().await;
        let checkpoints = checkpoints.expect("the group has progress");
        checkpoints
            .iter()
            .map(|checkpoint| checkpoint.position)
            .collect()
    }
}

/// Sends a record of each key, while all fetches of the member fail from now on, and after some have failed for these
/// records.
async fn send_unreadable(member: &Member, faults: &Faults) {
    faults.fail_fetches(&member.id, UNKNOWN_SERVER_ERROR, u32::MAX);
    // Fetches that already wait for records would return them.
    until("a later fetch fails", || faults.hits(&member.id) >= 2).await;
    send(&member.client, &member.stream, 1..2).await;
    let later = faults.hits(&member.id) + FAILURES;
    until("fetches have failed", || faults.hits(&member.id) >= later).await;
}

/// librdkafka's position is after the record that could not be read. A later member would begin there.
pub(crate) async fn is_no_progress(fixture: Arc<Fixture>) {
    let events = Events::listen();
    let mut member = Member::join(&fixture).await;
    let before = member.progress().await;
    let faults = fixture.testbed.faults();
    send_unreadable(&member, faults).await;
    assert_eq!(member.progress().await, before, "nothing more was read");
    let reported = |event: &str| events.with(event, "group", &member.group);
    let [stalled, continues] =
        ["stalled", "continues"].map(|what| format!("millstream.kafka.partition.{what}"));
    until("both partitions are reported", || {
        reported(&stalled).len() == PARTITIONS
    })
    .await;
    assert_eq!(reported(&continues).len(), 0);

    faults.fail_fetches(&member.id, UNKNOWN_SERVER_ERROR, 0);
    let deliveries = pull(&mut member.consumer, KEYS).await;
    let mut payloads: Vec<_> = deliveries.iter().map(|delivery| text(delivery)).collect();
    deliveries.into_iter().for_each(|delivery| delivery.ack());
    payloads.sort_unstable();
    let expected: Vec<_> = (0..KEYS).map(|key| format!("{key}/1")).collect();
    assert_eq!(payloads, expected, "each record arrives once");
    assert_eq!(reported(&stalled).len(), PARTITIONS, "once each");
    assert_eq!(reported(&continues).len(), PARTITIONS);
    member.consumer.close().await.expect("it closes");
}

/// A rebalance pauses all partitions, and librdkafka would resume the one that stays at its own position, which
/// is after the record that could not be read.
pub(crate) async fn before_a_rebalance(fixture: Arc<Fixture>) {
    let mut member = Member::join(&fixture).await;
    let faults = fixture.testbed.faults();
    send_unreadable(&member, faults).await;

    let client = fixture.client().await;
    let group = client.group(&member.group).stream(member.stream.as_str());
    let mut other = group.join().await.expect("it joins");
    let (one, two) = (member.consumer.handle(), other.handle());
    until("each owns a partition", || {
        one.partitions().len() == 1 && two.partitions().len() == 1
    })
    .await;
    faults.fail_fetches(&member.id, UNKNOWN_SERVER_ERROR, 0);
    let mut payloads = Vec::new();
    while payloads.len() < KEYS {
        let next = timeout(TIMEOUT, async {
            tokio::select! {
                next = member.consumer.next() => next,
                next = other.next() => next,
            }
        });
        let next = next.await;
        let next = next.unwrap_or_else(|_| panic!("only {payloads:?} were read"));
        let delivery = next.expect("both continue").expect("neither is closed");
        payloads.push(text(&delivery));
        delivery.ack();
    }
    payloads.sort_unstable();
    let expected: Vec<_> = (0..KEYS).map(|key| format!("{key}/1")).collect();
    assert_eq!(payloads, expected, "each record arrives once");
    member.consumer.close().await.expect("it closes");
    other.close().await.expect("it closes");
}

/// An unreadable offset within the log was beyond the log's end before: the records that are there now were never read.
pub(crate) async fn of_a_log_that_was_cut_back(fixture: Arc<Fixture>) {
    let mut member = Member::join(&fixture).await;
    let faults = fixture.testbed.faults();
    faults.fail_fetches(&member.id, OFFSET_OUT_OF_RANGE, u32::MAX);
    let ended = timeout(TIMEOUT, member.consumer.next()).await;
    let error = ended
        .expect("it ends")
        .map(drop)
        .expect_err("it ends with an error");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let text = error.to_string();
    assert!(text.contains("reset the group"), "{text}");
    faults.fail_fetches(&member.id, OFFSET_OUT_OF_RANGE, 0);
}
