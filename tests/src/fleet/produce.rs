use std::time::Duration;

use millstream_core::{Client, ErrorKind, Producer, Receipt, RecordMetadata, Result};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::joined;
use crate::history::{Event, History, RecordGenerator};

/// A producer whose records and receipts are observed.
#[derive(Debug)]
pub struct TestProducer {
    /// The producer.
    pub producer: Producer,
    history: History,
    load: RecordGenerator,
    receipts: Vec<(u64, Receipt)>,
}

impl TestProducer {
    /// Opens a producer. Ids count from `first_id`.
    pub async fn open(client: &Client, stream: &str, history: &History, first_id: u64) -> Self {
        let producer = client.producer(stream).open().await;
        Self::with(producer.expect("the producer opens"), history, first_id)
    }

    /// Observes a producer that is open.
    pub fn with(producer: Producer, history: &History, first_id: u64) -> Self {
        let load = RecordGenerator::new(history, producer.stream(), first_id);
        Self {
            producer,
            history: history.clone(),
            load,
            receipts: Vec::new(),
        }
    }

    /// Sends one record, and returns its id. Its receipt is kept.
    pub async fn send_one(&mut self, key: Option<&str>) -> u64 {
        self.send_padded(key, 0).await
    }

    /// Like [`send_one`](Self::send_one), with a payload that is longer by `padding` bytes.
    pub async fn send_padded(&mut self, key: Option<&str>, padding: usize) -> u64 {
        let (id, record) = self.load.next_with(key, |mut record| {
            let mut payload = record.payload.unwrap_or_default().to_vec();
            payload.resize(payload.len() + padding, b'x');
            record.payload = Some(payload.into());
            record
        });
        match self.producer.send(record).await {
            Ok(receipt) => self.receipts.push((id, receipt)),
            Err(error) => {
                record_result(&self.history, id, Err(error));
            }
        }
        id
    }

    /// Sends `per_key` records of each of `keys` keys, round robin, and waits for all receipts.
    pub async fn send(&mut self, keys: usize, per_key: usize) {
        for _ in 0..per_key {
            for key in 0..keys {
                self.send_one(Some(&format!("key-{key}"))).await;
            }
        }
        self.receipts().await;
    }

    /// Waits for all receipts, and returns those of stored records.
    pub async fn receipts(&mut self) -> Vec<(u64, RecordMetadata)> {
        let mut stored = Vec::new();
        for (id, receipt) in self.receipts.drain(..) {
            if let Some(metadata) = record_result(&self.history, id, receipt.await) {
                stored.push((id, metadata));
            }
        }
        stored
    }

    /// Waits for all receipts and closes the producer.
    pub async fn close(mut self) {
        self.receipts().await;
        self.producer.close().await.expect("the producer closes");
    }

    /// Sends one record of each of `keys` keys, round robin, one every `pause`, until it is asked to
    /// stop.
    pub fn send_in_background(mut self, keys: usize, pause: Duration) -> BackgroundLoad {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut turn = 0;
            while let Err(oneshot::error::TryRecvError::Empty) = stopped.try_recv() {
                self.send_one(Some(&format!("key-{}", turn % keys))).await;
                turn += 1;
                tokio::time::sleep(pause).await;
            }
            self.close().await;
        });
        BackgroundLoad { stop, task }
    }
}

/// A steady load.
#[derive(Debug)]
#[must_use = "stop it, to know that its records are stored"]
pub struct BackgroundLoad {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl BackgroundLoad {
    /// Ends it, and waits for its receipts.
    pub async fn stop(self) {
        // A task that failed has already ended; its panic is next.
        let _ = self.stop.send(());
        joined(self.task).await;
    }
}

fn record_result(
    history: &History,
    id: u64,
    result: Result<RecordMetadata>,
) -> Option<RecordMetadata> {
    match result {
        Ok(metadata) => {
            history.record(Event::Acknowledged {
                id,
                partition: metadata.partition.clone(),
                position: metadata.position,
            });
            Some(metadata)
        }
        Err(error) => {
            let open = error.is_retryable() || error.kind() == ErrorKind::Closed;
            history.record(match open {
                true => Event::Unknown { id },
                false => Event::Failed { id },
            });
            None
        }
    }
}
