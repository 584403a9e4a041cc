//! A loop of `PutRecords`, without order: requests as large as allowed, several in flight, and
//! rejected records are sent again before new ones.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;

use crate::job::Target;
use crate::keys::{keys, payload};
use crate::put::{Amount, Throughput};
use crate::{Result, raw};

/// The maximum number of entries of a request.
const ENTRIES: usize = 500;
const REQUESTS: usize = 8;
/// The delay after a request with rejected records. Shards count by the second.
const BACKOFF: Duration = Duration::from_millis(100);

/// The records that are still to be sent.
struct Source {
    keys: Vec<String>,
    amount: Amount,
    begun: Instant,
    next: u64,
    refused: Vec<u64>,
}

impl Source {
    fn take(&mut self) -> Vec<u64> {
        let again = self.refused.len().min(ENTRIES);
        let mut taken = self.refused.drain(..again).collect::<Vec<_>>();
        while taken.len() < ENTRIES && !self.amount.is_sent(self.next, self.begun) {
            taken.push(self.next);
            self.next += 1;
        }
        taken
    }

    fn entry(&self, number: u64) -> Result<PutRecordsRequestEntry> {
        let key = &self.keys[number as usize % self.keys.len()];
        let entry = PutRecordsRequestEntry::builder().partition_key(key);
        Ok(entry.data(Blob::new(payload(number))).build()?)
    }
}

pub(crate) async fn run(
    target: &Target,
    amount: Amount,
    throughput: &mut Throughput,
) -> Result<()> {
    let kinesis = raw::kinesis(&target.kinesis);
    throughput.begun = Instant::now();
    let source = Mutex::new(Source {
        keys: keys(),
        amount,
        begun: throughput.begun,
        next: 0,
        refused: Vec::new(),
    });
    let throughput = Mutex::new(throughput);
    let senders = (0..REQUESTS).map(|_| send(&kinesis, &target.stream, &source, &throughput));
    futures_util::future::try_join_all(senders).await?;
    Ok(())
}

async fn send(
    kinesis: &Client,
    stream: &str,
    source: &Mutex<Source>,
    throughput: &Mutex<&mut Throughput>,
) -> Result<()> {
    loop {
        let (numbers, entries) = {
            let mut source = lock(source);
            let numbers = source.take();
            let entries = numbers.iter().map(|number| source.entry(*number));
            (numbers.clone(), entries.collect::<Result<Vec<_>>>()?)
        };
        if entries.is_empty() {
            return Ok(());
        }
        let request = kinesis.put_records().stream_name(stream);
        let response = request.set_records(Some(entries)).send().await?;
        let results = numbers.iter().zip(response.records());
        let refused = results.filter(|(_, response)| response.error_code().is_some());
        let refused = refused.map(|(number, _)| *number).collect::<Vec<_>>();
        lock(throughput).add((numbers.len() - refused.len()) as u64);
        if !refused.is_empty() {
            lock(source).refused.extend(refused);
            tokio::time::sleep(BACKOFF).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
