//! A driver with scripted results, which also checks that the runtime keeps its side of the
//! contract.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::driver::{self, Pipelining, Rejected, StreamLimits};
use crate::{
    Client, Error, ErrorKind, Guarantee, Guarantees, Partition, Position, ProducerBuilder, Record,
    RecordMetadata, Result,
};

pub(super) const LIMITS: StreamLimits = StreamLimits {
    record_bytes: 1_000,
    key_bytes: 10,
    key_chars: None,
    empty_key: false,
    text_key: true,
    batch_records: 100,
    batch_bytes: 10_000,
};

/// A handle to the driver. Payloads name records; a payload `stuck` never gets a result, and `panic`
/// panics.
#[derive(Debug, Clone)]
pub(super) struct Fake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: StreamLimits,
    pipelining: Pipelining,
    latency: Duration,
    has_routes: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    script: BTreeMap<Bytes, VecDeque<ErrorKind>>,
    stored: Vec<Record>,
    calls: Vec<Vec<Bytes>>,
    under_way: usize,
    most_under_way: usize,
    keys_under_way: BTreeSet<Bytes>,
    closed: usize,
}

impl Fake {
    pub(super) fn new(pipelining: Pipelining) -> Self {
        Self::with(pipelining, LIMITS, Duration::ZERO)
    }

    pub(super) fn with(pipelining: Pipelining, limits: StreamLimits, latency: Duration) -> Self {
        Self(Arc::new(Inner {
            limits,
            pipelining,
            latency,
            has_routes: false,
            state: Mutex::default(),
        }))
    }

    /// Creates an ordered driver whose records have routes: the first byte of their keys.
    pub(super) fn with_routes(latency: Duration) -> Self {
        Self(Arc::new(Inner {
            limits: LIMITS,
            pipelining: Pipelining::Ordered,
            latency,
            has_routes: true,
            state: Mutex::default(),
        }))
    }

    /// Fails the next attempts of record `name` with these kinds.
    pub(super) fn fail(&self, name: &str, kinds: impl IntoIterator<Item = ErrorKind>) {
        let mut state = self.0.state.lock().unwrap();
        let name = Bytes::copy_from_slice(name.as_bytes());
        state.script.entry(name).or_default().extend(kinds);
    }

    pub(super) fn builder(&self) -> ProducerBuilder {
        Client::new(self.clone()).producer("s")
    }

    /// Returns the payloads stored so far.
    pub(super) fn stored(&self) -> Vec<String> {
        let state = self.0.state.lock().unwrap();
        state.stored.iter().map(name_of).collect()
    }

    /// Returns the payloads stored so far for one key.
    pub(super) fn stored_of(&self, key: &str) -> Vec<String> {
        let state = self.0.state.lock().unwrap();
        let of_key = |record: &&Record| record.key.as_deref() == Some(key.as_bytes());
        state.stored.iter().filter(of_key).map(name_of).collect()
    }

    /// Returns the payloads of each call.
    pub(super) fn calls(&self) -> Vec<Vec<String>> {
        let state = self.0.state.lock().unwrap();
        state
            .calls
            .iter()
            .map(|call| call.iter().map(text).collect())
            .collect()
    }

    pub(super) fn most_under_way(&self) -> usize {
        self.0.state.lock().unwrap().most_under_way
    }

    pub(super) fn closed(&self) -> usize {
        self.0.state.lock().unwrap().closed
    }
}

fn name_of(record: &Record) -> String {
    text(record.payload.as_ref().expect("a name"))
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl State {
    fn begin(&mut self, records: &[Record], pipelining: Pipelining) {
        assert_eq!(self.closed, 0, "send after close");
        self.calls.push(
            records
                .iter()
                .filter_map(|record| record.payload.clone())
                .collect(),
        );
        self.under_way += 1;
        self.most_under_way = self.most_under_way.max(self.under_way);
        if let Pipelining::ByKey { calls } = pipelining {
            assert!(self.under_way <= calls, "too many calls");
            for key in keys(records) {
                assert!(self.keys_under_way.insert(key), "two calls share a key");
            }
        }
    }

    fn end(&mut self, records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>> {
        self.under_way -= 1;
        for key in keys(&records) {
            self.keys_under_way.remove(&key);
        }
        let mut failed = BTreeSet::new();
        records
            .into_iter()
            .map(|record| self.store(record, &mut failed))
            .collect()
    }

    fn store(
        &mut self,
        record: Record,
        failed: &mut BTreeSet<Bytes>,
    ) -> Result<RecordMetadata, Rejected> {
        let after = record.key.as_ref().is_some_and(|key| failed.contains(key));
        let kind = match after {
            true => Some(ErrorKind::Unavailable),
            false => self
                .script
                .get_mut(record.payload.as_ref().expect("a name"))
                .and_then(VecDeque::pop_front),
        };
        match kind {
            None => {
                self.stored.push(record);
                let partition = Partition::new("s", "0");
                Ok(RecordMetadata::new(
                    partition,
                    Position::from(self.stored.len() as u64),
                ))
            }
            Some(kind) => {
                failed.extend(record.key.clone());
                let message = if after {
                    "after a failed one"
                } else {
                    "scripted"
                };
                let error = Error::new(kind, "send", message).with_stream("s");
                Err(Rejected::new(record, error))
            }
        }
    }
}

fn keys(records: &[Record]) -> BTreeSet<Bytes> {
    records
        .iter()
        .filter_map(|record| record.key.clone())
        .collect()
}

#[async_trait]
impl driver::Producer for Fake {
    fn limits(&self) -> StreamLimits {
        self.0.limits
    }

    fn pipelining(&self) -> Pipelining {
        self.0.pipelining
    }

    fn validate(&self, _record: &Record) -> Result<()> {
        Ok(())
    }

    fn route(&self, record: &Record) -> Option<u64> {
        let key = record.key.as_ref().filter(|_| self.0.has_routes)?;
        key.first().map(|first| u64::from(*first))
    }

    async fn send(&self, records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>> {
        let has = |name: &str| {
            records
                .iter()
                .any(|record| record.payload.as_deref() == Some(name.as_bytes()))
        };
        assert!(!has("panic"), "as scripted");
        self.0
            .state
            .lock()
            .unwrap()
            .begin(&records, self.0.pipelining);
        if has("stuck") {
            pending::<()>().await;
        }
        if !self.0.latency.is_zero() {
            tokio::time::sleep(self.0.latency).await;
        }
        self.0.state.lock().unwrap().end(records)
    }

    async fn close(&self) -> Result<()> {
        self.0.state.lock().unwrap().closed += 1;
        Ok(())
    }
}

#[async_trait]
impl driver::Backend for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::default()
    }

    fn check_stream_name(&self, name: &str) -> Result<(), String> {
        driver::check_stream_name(name)
    }

    async fn open_producer(&self, _: &str, _: &[Guarantee]) -> Result<Arc<dyn driver::Producer>> {
        Ok(Arc::new(self.clone()))
    }

    fn check_group_name(&self, name: &str) -> Result<(), String> {
        driver::check_group_name(name)
    }

    fn consumer_group(&self, _group: &str) -> Arc<dyn driver::ConsumerGroup> {
        unreachable!("only producers are tested here")
    }

    fn checkpoints(&self, _group: &str) -> Arc<dyn driver::Checkpoints> {
        unreachable!("only producers are tested here")
    }

    fn streams(&self) -> Arc<dyn driver::Streams> {
        unreachable!("only producers are tested here")
    }
}
