//! The cost of many partitions. Visits are counted, since times mean little on a busy machine.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc};

use super::visits;
use crate::driver::{
    Backend, CheckpointUpdate, Checkpoints, ConsumerGroup, Event, JoinOptions, Membership,
    Producer, StoredRecord, Streams,
};
use crate::{
    Client, Delivery, Epoch, Guarantee, Guarantees, Headers, Lag, Partition, Position, Record,
    Result,
};

/// A driver that reports what the test sends, and accepts everything.
#[derive(Debug, Clone)]
struct Driver(Arc<Mutex<mpsc::UnboundedReceiver<Vec<Event>>>>);

#[async_trait]
impl Backend for Driver {
    fn name(&self) -> &'static str {
        "many"
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::default()
    }

    fn check_stream_name(&self, name: &str) -> Result<(), String> {
        crate::driver::check_stream_name(name)
    }

    async fn open_producer(&self, _: &str, _: &[Guarantee]) -> Result<Arc<dyn Producer>> {
        unimplemented!("a consumer opens no producer")
    }

    fn check_group_name(&self, name: &str) -> Result<(), String> {
        crate::driver::check_group_name(name)
    }

    fn consumer_group(&self, _group: &str) -> Arc<dyn ConsumerGroup> {
        Arc::new(self.clone())
    }

    fn checkpoints(&self, _group: &str) -> Arc<dyn Checkpoints> {
        unimplemented!("a member reads no checkpoints")
    }

    fn streams(&self) -> Arc<dyn Streams> {
        unimplemented!("a member administers no streams")
    }
}

#[async_trait]
impl ConsumerGroup for Driver {
    async fn join(&self, _join: JoinOptions) -> Result<Arc<dyn Membership>> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Membership for Driver {
    fn id(&self) -> &str {
        "member"
    }

    async fn next(&self) -> Result<Vec<Event>> {
        match self.0.lock().await.recv().await {
            Some(events) => Ok(events),
            None => pending().await,
        }
    }

    async fn checkpoint(&self, updates: &[CheckpointUpdate]) -> Vec<Result<()>> {
        updates.iter().map(|_| Ok(())).collect()
    }

    async fn publish(&self, _: &str, _: &[Record], _: &[CheckpointUpdate]) -> Result<()> {
        unimplemented!("a plain member publishes nothing")
    }

    async fn release(&self, _partition: &Partition, _epoch: Epoch) -> Result<()> {
        Ok(())
    }

    async fn complete(&self, _partition: &Partition, _epoch: Epoch) -> Result<()> {
        Ok(())
    }

    fn pause(&self, _partition: &Partition, _epoch: Epoch) {}

    fn resume(&self, _partition: &Partition, _epoch: Epoch) {}

    async fn leave(&self) -> Result<()> {
        Ok(())
    }
}

/// The kind of departure of the partitions.
#[derive(Debug, Clone, Copy)]
enum Departure {
    Revoked,
    Lost,
    Shutdown,
}

/// The state of their records.
#[derive(Debug, Clone, Copy)]
enum Records {
    /// They are settled before the departure.
    Settled,
    /// They are stuck, and exceed the buffer.
    FillTheBuffer,
}

/// Returns how often a member visits an assignment until all of them have left.
async fn visits(partitions: usize, departure: Departure, records: Records) -> u64 {
    let before = visits::count();
    let (events, receiver) = mpsc::unbounded_channel();
    let client = Client::new(Driver(Arc::new(Mutex::new(receiver))));
    let (buffer, stuck) = match records {
        Records::Settled => (1 << 30, false),
        Records::FillTheBuffer => (1, true),
    };
    let handler = move |_: Delivery| async move {
        if stuck {
            pending::<()>().await;
        }
        Ok::<(), String>(())
    };
    let group = client.group("g").stream("s").buffer_bytes(buffer);
    let run = group.run(handler, pending());
    let (control, run) = (run.handle(), tokio::spawn(run));
    let all: Vec<Partition> = (0..partitions)
        .map(|id| Partition::new("s", id.to_string()))
        .collect();
    events
        .send(all.iter().cloned().map(assigned).collect())
        .unwrap();
    events
        .send(all.iter().cloned().map(one_record).collect())
        .unwrap();
    let expected = match records {
        Records::Settled => partitions as u64,
        Records::FillTheBuffer => 0,
    };
    let received = || {
        let stats = control.stats();
        (stats.received, stats.settled) == (partitions as u64, expected)
    };
    until(received).await;
    let partitions_and_epochs = all.into_iter().map(|partition| (partition, Epoch(1)));
    match departure {
        Departure::Revoked => events
            .send(vec![Event::Revoking {
                partitions: partitions_and_epochs.collect(),
                within: Duration::from_secs(10),
            }])
            .unwrap(),
        Departure::Lost => events
            .send(vec![Event::Lost {
                partitions: partitions_and_epochs.collect(),
            }])
            .unwrap(),
        Departure::Shutdown => {}
    }
    match departure {
        Departure::Revoked | Departure::Lost => until(|| control.partitions().is_empty()).await,
        Departure::Shutdown => {
            control.shutdown();
            run.await.unwrap().unwrap();
        }
    }
    visits::count() - before
}

fn assigned(partition: Partition) -> Event {
    Event::Assigned {
        partition,
        epoch: Epoch(1),
        resume_after: None,
        stream_id: None,
    }
}

fn one_record(partition: Partition) -> Event {
    let record = StoredRecord {
        position: Position::from(0),
        timestamp: SystemTime::UNIX_EPOCH,
        key: None,
        payload: Some("payload".into()),
        headers: Headers::new(),
    };
    Event::Records {
        partition,
        epoch: Epoch(1),
        records: vec![record],
        lag: Lag::default(),
    }
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(600), wait).await;
    waited.expect("the condition never came true");
}

/// Ten times as many partitions cost about ten times as much. If each departure visited all others, it would be
/// a hundred times.
#[tokio::test(start_paused = true)]
async fn the_cost_of_a_departure_grows_with_its_partitions_only() {
    for records in [Records::Settled, Records::FillTheBuffer] {
        for departure in [Departure::Revoked, Departure::Lost, Departure::Shutdown] {
            let few = visits(200, departure, records).await;
            let many = visits(2_000, departure, records).await;
            assert!(few >= 200, "{departure:?} {records:?}: {few} counted");
            assert!(
                many <= 20 * few && many <= 20 * 2_000,
                "{departure:?} {records:?}: {few} for 200 partitions, {many} for 2,000"
            );
        }
    }
}
