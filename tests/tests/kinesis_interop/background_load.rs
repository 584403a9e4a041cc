//! A steady load.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use millstream_core::{Client, Receipt, Record};
use tokio::task::JoinHandle;

/// The number of keys: enough for every shard of a case to have some.
const KEYS: usize = 48;

/// The time between two records.
const PAUSE: Duration = Duration::from_millis(5);

/// Sends records of all keys, round robin, until it is stopped.
#[derive(Debug)]
pub(crate) struct BackgroundLoad {
    ends: Arc<AtomicBool>,
    sending: JoinHandle<BTreeMap<String, u64>>,
}

impl BackgroundLoad {
    pub(crate) async fn start(client: &Client, stream: &str) -> Self {
        let producer = client.producer(stream).open().await;
        let producer = producer.expect("the producer opens");
        let ends = Arc::new(AtomicBool::new(false));
        let ended = ends.clone();
        let sending = tokio::spawn(async move {
            let mut sent = BTreeMap::new();
            let mut receipts: Vec<Receipt> = Vec::new();
            for n in 0.. {
                for key in 0..KEYS {
                    let key = format!("key-{key}");
                    let record = Record::new(format!("{key}/{n}")).key(key.clone());
                    receipts.push(producer.send(record).await.expect("it is taken"));
                    *sent.entry(key).or_insert(0) += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                if ended.load(Relaxed) {
                    break;
                }
            }
            for receipt in receipts {
                receipt.await.expect("it is stored");
            }
            producer.close().await.expect("it closes");
            sent
        });
        Self { ends, sending }
    }

    /// Stops it, and returns the number of records of each key. All of them are stored.
    pub(crate) async fn stop(self) -> BTreeMap<String, u64> {
        self.ends.store(true, Relaxed);
        self.sending.await.expect("everything is stored")
    }
}
