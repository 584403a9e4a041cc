//! C3: a result of an exactly-once pipeline that only the broker rejects is a failure of its source
//! delivery. The rest of the pipeline is neither blocked nor lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_core::{
    ConsumerGroup, ConsumerHandle, DeadLetter, Delivery, ErrorKind, OnExhausted, Partition,
    Position, Producer, Record, RecordMetadata, Result, Retry,
};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::cases;
use super::pipelines::{same_client, visible};
use super::reader::{ids_by_key, letters, read};
use crate::fleet::{Fleet, joined};
use crate::harness::unique_stream;
use crate::history::{Event, Observer, Outcome, id_of};
use crate::{Fault, Harness, within_timeout};

cases! {
    c03_result_that_the_broker_refuses_is_skipped [EXACTLY_ONCE, REFUSE_LARGE],
    c03_result_that_the_broker_refuses_is_dead_lettered [EXACTLY_ONCE, REFUSE_LARGE, FAIL_SENDS],
    c03_result_that_the_broker_refuses_stops_the_consumer [EXACTLY_ONCE, REFUSE_LARGE],
}

/// The size of the rejected results, and the limit of the broker.
const LARGE: usize = 40_000;
const LIMIT: usize = 20_000;

const KEYS: usize = 12;

/// A source with three partitions. A key of the first is stuck in the handler, the results of a key of
/// the second are too large, and the third has neither.
struct Scenario {
    fleet: Fleet,
    sink: String,
    producer: Producer,
    roles: Arc<Roles>,
    /// All records, in the order in which they were sent.
    sent: Vec<(u64, RecordMetadata)>,
}

struct Roles {
    stuck: Bytes,
    large: Bytes,
    /// The partitions of the two keys, and another one.
    partitions: [Partition; 3],
}

impl Scenario {
    async fn new(harness: Arc<dyn Harness>) -> Self {
        let fleet = Fleet::new(harness, 3).await;
        let sink = unique_stream(&*fleet.harness, 2).await;
        let producer = fleet.client.producer(sink.as_str()).open().await;
        let producer = producer.expect("the producer opens");
        refuse_large(&fleet, &sink, Some(LIMIT)).await;
        let mut test_producer = fleet.test_producer().await;
        test_producer.send(KEYS, 1).await;
        let source = read(&*fleet.harness, &fleet.stream, KEYS).await;
        let mut found: Vec<(Bytes, Partition)> = Vec::new();
        for delivery in &source {
            let partition = delivery.partition();
            if !found.iter().any(|(_, known)| known == partition) {
                let key = delivery.key().expect("it has a key").clone();
                found.push((key, partition.clone()));
            }
        }
        let partitions: [_; 3] = [0, 1, 2].map(|place: usize| found[place].1.clone());
        let roles = Roles {
            stuck: found[0].0.clone(),
            large: found[1].0.clone(),
            partitions,
        };
        for _ in 0..3 {
            for key in 0..KEYS {
                test_producer.send_one(Some(&format!("key-{key}"))).await;
            }
        }
        let mut sent: Vec<_> = test_producer.receipts().await;
        test_producer.close().await;
        let first = |delivery: &Delivery| {
            let id = id_of(delivery.payload()).expect("the payload has its id");
            let at = RecordMetadata::new(delivery.partition().clone(), delivery.position());
            (id, at)
        };
        sent.extend(source.iter().map(first));
        sent.sort_by_key(|(id, _)| *id);
        Self {
            fleet,
            sink,
            producer,
            roles: Arc::new(roles),
            sent,
        }
    }

    /// Returns the group, which publishes often.
    fn group(&self) -> ConsumerGroup {
        let interval = self.fleet.harness.timing().poll_interval;
        same_client(&self.fleet).checkpoint_interval(interval)
    }

    async fn start(&self, group: ConsumerGroup, policy: OnExhausted) -> Running {
        let (open, gate) = watch::channel(false);
        let (stop, stopped) = oneshot::channel::<()>();
        let observer = Observer::new(&self.fleet.history, &self.fleet.group, "a");
        let worker = Worker {
            observer: observer.clone(),
            roles: self.roles.clone(),
            gate,
            gives_up: policy != OnExhausted::Stop,
        };
        let retry = Retry::exponential().then(policy);
        let run = group.member("a").on_failure(retry).transform_to(
            &self.producer,
            move |delivery| worker.clone().transform(delivery),
            async move { _ = stopped.await },
        );
        let control = run.handle();
        let task = tokio::spawn(run);
        let reads = || control.stats().received > 0;
        self.fleet.until("the pipeline reads", reads).await;
        Running {
            observer,
            control,
            open,
            stop,
            task,
        }
    }

    /// Returns the records of a partition, in their order.
    fn records_of(&self, partition: &Partition) -> Vec<(u64, Position)> {
        let of = self
            .sent
            .iter()
            .filter(|(_, at)| at.partition == *partition);
        let mut records: Vec<_> = of.map(|(id, at)| (*id, at.position)).collect();
        records.sort_by_key(|(_, position)| *position);
        records
    }

    async fn checkpoint(&self, partition: &Partition) -> Option<Position> {
        let checkpoints = self.fleet.checkpoints().await;
        let of = checkpoints.into_iter().find(|c| c.partition == *partition);
        of.and_then(|checkpoint| checkpoint.position)
    }

    async fn until_checkpointed(&self, partition: &Partition) {
        let last = self
            .records_of(partition)
            .last()
            .map(|(_, position)| *position);
        let stored = self.fleet.eventually("it is checkpointed", || async {
            (self.checkpoint(partition).await >= last).then_some(())
        });
        stored.await;
    }

    /// Returns the ids of the records whose results are rejected.
    async fn large(&self) -> BTreeSet<u64> {
        let source = read(&*self.fleet.harness, &self.fleet.stream, self.sent.len()).await;
        let large = source.iter().filter(|d| d.key() == Some(&self.roles.large));
        large.filter_map(|d| id_of(d.payload())).collect()
    }

    /// Asserts that the sink has the results of all records except `left_out`, each once, each key in its order.
    async fn assert_results(&self, left_out: &BTreeSet<u64>) {
        let source = read(&*self.fleet.harness, &self.fleet.stream, self.sent.len()).await;
        let mut expected = ids_by_key(&source);
        for ids in expected.values_mut() {
            ids.retain(|id| !left_out.contains(id));
        }
        expected.retain(|_, ids| !ids.is_empty());
        assert_eq!(
            ids_by_key(&visible(&self.fleet, &self.sink).await),
            expected,
            "the results are those of all records that are not left out"
        );
    }
}

async fn refuse_large(fleet: &Fleet, sink: &str, limit: Option<usize>) {
    let stream = sink.to_owned();
    let fault = Fault::RefuseLarge { stream, limit };
    fleet.inject(fault).await;
}

struct Running {
    observer: Observer,
    control: ConsumerHandle,
    open: watch::Sender<bool>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

impl Running {
    /// Releases the stuck key, waits until all records are settled, and ends the scenario.
    async fn finish(self, fleet: &Fleet) {
        self.open.send(true).expect("the pipeline runs");
        fleet.caught_up().await;
        self.stop.send(()).expect("the pipeline runs");
        joined(self.task).await.expect("the pipeline closes");
        self.observer.left();
    }
}

#[derive(Clone)]
struct Worker {
    observer: Observer,
    roles: Arc<Roles>,
    gate: watch::Receiver<bool>,
    /// Whether the policy settles rejected records.
    gives_up: bool,
}

impl Worker {
    async fn transform(self, delivery: Delivery) -> std::result::Result<[Record; 1], String> {
        let open = self.observer.begin(&delivery);
        let key = delivery.key().cloned().unwrap_or_default();
        if key == self.roles.stuck {
            let mut gate = self.gate.clone();
            gate.wait_for(|open| *open).await.expect("the case runs");
        }
        let mut result = delivery.to_record();
        if key == self.roles.large {
            result = result.header("filling", vec![b'x'; LARGE]);
        }
        open.end(match key == self.roles.large && self.gives_up {
            true => Outcome::GaveUp,
            false => Outcome::Acked,
        });
        Ok([result])
    }
}

async fn c03_result_that_the_broker_refuses_is_skipped(harness: Arc<dyn Harness>) {
    let setup = Scenario::new(harness).await;
    let [stuck, large, other] = &setup.roles.partitions;
    let refused = setup.large().await;
    let running = setup.start(setup.group(), OnExhausted::Skip).await;
    for id in &refused {
        setup.fleet.history.record(Event::Skipped {
            group: setup.fleet.group.as_str().into(),
            id: *id,
        });
    }
    setup.until_checkpointed(large).await;
    setup.until_checkpointed(other).await;
    let stats = running.control.stats();
    assert_eq!((stats.skipped, stats.failures), (4, 4), "{stats:?}");
    let held = setup.checkpoint(stuck).await;
    let last = setup
        .records_of(stuck)
        .last()
        .map(|(_, position)| *position);
    assert!(held < last, "the stuck key holds its partition");
    running.finish(&setup.fleet).await;
    let summary = setup.fleet.check().await;
    assert_eq!((summary.skipped, summary.duplicates), (4, 0), "{summary:?}");
    setup.assert_results(&refused).await;
}

async fn c03_result_that_the_broker_refuses_is_dead_lettered(harness: Arc<dyn Harness>) {
    let setup = Scenario::new(harness).await;
    let fleet = &setup.fleet;
    let [_, large, other] = &setup.roles.partitions;
    let refused = setup.large().await;
    let dead = unique_stream(&*fleet.harness, 1).await;
    let fault = Fault::FailSends {
        stream: dead.clone(),
        key: None,
        times: 6,
    };
    fleet.inject(fault).await;
    let policy = DeadLetter::stream(dead.as_str());
    let running = setup.start(setup.group(), policy.into()).await;
    setup.until_checkpointed(other).await;
    // Whenever the checkpoint has passed a rejected record, its letter must be readable.
    let records = setup.records_of(large);
    let all_settled = fleet.eventually("all letters are settled", || async {
        let checkpoint = setup.checkpoint(large).await;
        let passed = records
            .iter()
            .filter(|(id, position)| refused.contains(id) && Some(*position) <= checkpoint);
        let passed = passed.count();
        assert_eq!(
            letters(&*fleet.harness, &dead, passed).await.len(),
            passed,
            "each record that the checkpoint has passed has its letter"
        );
        (passed == refused.len()).then_some(())
    });
    all_settled.await;
    setup.until_checkpointed(large).await;
    let letters = letters(&*fleet.harness, &dead, refused.len()).await;
    let source = read(&*fleet.harness, &fleet.stream, setup.sent.len()).await;
    for letter in &letters {
        let id = id_of(letter.payload()).expect("the payload has its id");
        let of = source.iter().find(|of| id_of(of.payload()) == Some(id));
        let of = of.expect("it was sent");
        assert_eq!(
            (letter.key(), letter.payload()),
            (of.key(), of.payload()),
            "the letter has key and payload of its record"
        );
        let reason = letter.headers().get_str("millstream-dead-reason");
        let reason = reason.unwrap_or_default();
        assert!(reason.contains("publish failed (too_large)"), "{reason}");
        fleet.history.record(Event::DeadLettered {
            group: fleet.group.as_str().into(),
            id,
        });
    }
    let ids: BTreeSet<_> = letters.iter().filter_map(|d| id_of(d.payload())).collect();
    assert_eq!(ids, refused, "the letters are those of the refused records");
    assert_eq!(
        running.control.stats().dead_lettered,
        4,
        "{:?}",
        running.control.stats()
    );
    running.finish(fleet).await;
    let summary = fleet.check().await;
    assert_eq!(
        (summary.dead_lettered, summary.duplicates),
        (4, 0),
        "{summary:?}"
    );
    setup.assert_results(&refused).await;
}

async fn c03_result_that_the_broker_refuses_stops_the_consumer(harness: Arc<dyn Harness>) {
    let setup = Scenario::new(harness).await;
    let fleet = &setup.fleet;
    let [_, large, _] = &setup.roles.partitions;
    let refused = setup.large().await;
    let records = setup.records_of(large);
    let (place, (_, at)) = records
        .iter()
        .enumerate()
        .find(|(_, (id, _))| refused.contains(id))
        .expect("it was sent");
    let before = place.checked_sub(1).map(|before| records[before].1);
    let group = setup.group().drain_timeout(Duration::from_secs(1));
    let running = setup.start(group, OnExhausted::Stop).await;
    let ended = joined(running.task);
    let error = within_timeout(fleet.harness.timing(), "the pipeline stops", ended).await;
    let error = error.expect_err("the policy is to stop");
    assert_eq!(
        (error.kind(), error.partition()),
        (ErrorKind::Handler, Some(large)),
        "{error:?}"
    );
    assert!(
        error.message().contains(&format!("position {at} ")),
        "{error}"
    );
    let causes = format!("{error:?}");
    assert!(causes.contains("publish failed (too_large)"), "{causes}");
    running.observer.left();
    assert_eq!(
        setup.checkpoint(large).await,
        before,
        "the checkpoint stays before the refused record"
    );
    let shown = visible(fleet, &setup.sink).await;
    let behind: BTreeSet<_> = records[place..].iter().map(|(id, _)| *id).collect();
    let early = shown.iter().filter_map(|d| id_of(d.payload()));
    assert_eq!(
        early.filter(|id| behind.contains(id)).count(),
        0,
        "no result from the refused record on is visible"
    );
    // The next member meets the same record. When the broker accepts it, nothing is lost or repeated.
    refuse_large(fleet, &setup.sink, None).await;
    let running = setup.start(setup.group(), OnExhausted::Stop).await;
    running.finish(fleet).await;
    setup.assert_results(&BTreeSet::new()).await;
}
