//! A driver whose events the test writes, and whose calls the test reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use millstream_core::driver::{
    self, CheckpointUpdate, Event, JoinOptions, Pipelining, Rejected, StoredRecord, StreamLimits,
};
use millstream_core::{
    Client, Epoch, Error, ErrorKind, Guarantee, Guarantees, Headers, Lag, Partition, Position,
    Record, RecordMetadata, Result,
};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use crate::letters::{LetterBox, LetterProducer};

/// The test's side of the one membership that the fake backend gives out.
pub(crate) struct Script {
    pub(crate) client: Client,
    events: mpsc::UnboundedSender<Result<Event>>,
    fake: Arc<Fake>,
}

/// What the runtime asked of the driver, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Checkpoint(String, u64),
    /// The payloads, and each update; refused ones too.
    Publish(Vec<String>, Vec<(String, u64)>),
    Release(String),
    Complete(String),
    Pause(String),
    Resume(String),
    Leave,
}

#[derive(Debug)]
struct Fake {
    events: AsyncMutex<mpsc::UnboundedReceiver<Result<Event>>>,
    calls: Mutex<Vec<Call>>,
    /// Results of the next updates; `Ok` when none is left.
    refusals: Mutex<Vec<Error>>,
    /// How many completions still return `Unavailable`.
    completions_to_refuse: AtomicUsize,
    /// The payloads that are refused for good when they are published, and how.
    refused_results: Mutex<(Vec<String>, ErrorKind)>,
    /// A publication of more payloads takes too long.
    payloads_in_time: Mutex<usize>,
    /// The payloads that were published, in order.
    stored: Mutex<Vec<String>>,
    /// The last position that was stored with results, of each partition and epoch.
    progress: Mutex<BTreeMap<(String, u64), u64>>,
    /// While it is locked, no call of `publish` returns.
    publishing: AsyncMutex<()>,
    letters: Arc<LetterBox>,
    /// The method that panics at its next call.
    panics: Mutex<Option<&'static str>>,
    /// While it is locked, no member joins or leaves.
    membership: AsyncMutex<()>,
    /// How members have joined.
    joins: Mutex<Vec<JoinOptions>>,
    /// Whether the next checkpoint returns no result for its last partition.
    forgets_result: AtomicBool,
    /// The streams that do not keep the order of keys.
    unordered: Mutex<Vec<String>>,
}

impl Script {
    pub(crate) fn new() -> Self {
        let (events, receiver) = mpsc::unbounded_channel();
        let fake = Arc::new(Fake {
            events: AsyncMutex::new(receiver),
            calls: Mutex::default(),
            refusals: Mutex::default(),
            completions_to_refuse: AtomicUsize::new(0),
            refused_results: Mutex::new((Vec::new(), ErrorKind::Invalid)),
            payloads_in_time: Mutex::new(usize::MAX),
            stored: Mutex::default(),
            progress: Mutex::default(),
            publishing: AsyncMutex::default(),
            letters: Arc::default(),
            panics: Mutex::default(),
            membership: AsyncMutex::default(),
            joins: Mutex::default(),
            forgets_result: AtomicBool::new(false),
            unordered: Mutex::default(),
        });
        Self {
            client: Client::new(Backend(fake.clone())),
            events,
            fake,
        }
    }

    pub(crate) fn emit(&self, event: Event) {
        self.events
            .send(Ok(event))
            .expect("the membership lives as long as the script");
    }

    pub(crate) fn break_with(&self, kind: ErrorKind) {
        self.events
            .send(Err(Error::new(kind, "read", "as scripted")))
            .expect("as above");
    }

    pub(crate) fn assign(&self, id: &str, epoch: u64) {
        self.assign_of_stream(id, epoch, None);
    }

    pub(crate) fn assign_of_stream(&self, id: &str, epoch: u64, stream_id: Option<&str>) {
        self.emit(Event::Assigned {
            partition: partition(id),
            epoch: Epoch(epoch),
            resume_after: None,
            stream_id: stream_id.map(Into::into),
        });
    }

    /// Records at positions from `first`, one per key; `-` stands for no key.
    pub(crate) fn records(&self, id: &str, epoch: u64, first: u64, keys: &str) {
        let records = (first..)
            .zip(keys.chars())
            .map(|(position, key)| StoredRecord {
                position: Position::from(position),
                timestamp: SystemTime::UNIX_EPOCH,
                key: (key != '-').then(|| Bytes::from(key.to_string())),
                payload: Some(Bytes::from(position.to_string())),
                headers: Headers::new(),
            });
        self.emit(Event::Records {
            partition: partition(id),
            epoch: Epoch(epoch),
            records: records.collect(),
            lag: Lag::default(),
        });
    }

    pub(crate) fn revoke(&self, id: &str, epoch: u64, within: Duration) {
        let partitions = vec![(partition(id), Epoch(epoch))];
        self.emit(Event::Revoking { partitions, within });
    }

    pub(crate) fn mark_lost(&self, id: &str, epoch: u64) {
        self.emit(Event::Lost {
            partitions: vec![(partition(id), Epoch(epoch))],
        });
    }

    pub(crate) fn refuse_updates(&self, kinds: &[ErrorKind]) {
        let errors = kinds.iter();
        self.refuse_updates_with(errors.map(|kind| Error::new(*kind, "store", "as scripted")));
    }

    /// Refuses results with these payloads from now on.
    pub(crate) fn refuse_results(&self, payloads: &[&str], kind: ErrorKind) {
        let payloads = payloads.iter().map(|payload| (*payload).to_owned());
        *self.fake.refused_results.lock().unwrap() = (payloads.collect(), kind);
    }

    /// Lets a publication of more payloads than this time out from now on.
    pub(crate) fn time_out_above(&self, payloads: usize) {
        *self.fake.payloads_in_time.lock().unwrap() = payloads;
    }

    /// The payloads that were published, in order.
    pub(crate) fn stored(&self) -> Vec<String> {
        self.fake.stored.lock().unwrap().clone()
    }

    /// The last position of a partition's epoch that was stored with results.
    pub(crate) fn progress(&self, id: &str, epoch: u64) -> Option<u64> {
        let progress = self.fake.progress.lock().unwrap();
        progress.get(&(id.to_owned(), epoch)).copied()
    }

    /// As [`refuse_updates`](Self::refuse_updates), with the errors themselves.
    pub(crate) fn refuse_updates_with(
        &self,
        errors: impl IntoIterator<Item = Error, IntoIter: DoubleEndedIterator>,
    ) {
        let errors = errors.into_iter().rev();
        self.fake.refusals.lock().unwrap().extend(errors);
    }

    /// Sends one record as the driver would.
    pub(crate) fn record(&self, id: &str, epoch: u64, record: StoredRecord) {
        self.batch(id, epoch, vec![record]);
    }

    /// Sends one batch of records as the driver would.
    pub(crate) fn batch(&self, id: &str, epoch: u64, records: Vec<StoredRecord>) {
        self.emit(Event::Records {
            partition: partition(id),
            epoch: Epoch(epoch),
            records,
            lag: Lag::default(),
        });
    }

    /// The stream `dead`.
    pub(crate) fn letters(&self) -> &LetterBox {
        &self.fake.letters
    }

    /// Lets the next call of a method panic.
    pub(crate) fn panic_in(&self, method: &'static str) {
        *self.fake.panics.lock().unwrap() = Some(method);
    }

    /// Another client of the same backend.
    pub(crate) fn another_client(&self) -> Client {
        Client::new(Backend(self.fake.clone()))
    }

    /// Lets no publication return until the guard is dropped.
    pub(crate) async fn hold_publications(&self) -> impl Drop + '_ {
        self.fake.publishing.lock().await
    }

    /// Lets no join and no leave return until the guard is dropped.
    pub(crate) async fn hold_membership(&self) -> impl Drop + '_ {
        self.fake.membership.lock().await
    }

    /// What was published or tried to be, in order.
    pub(crate) fn publications(&self) -> Vec<(String, Vec<(String, u64)>)> {
        let publication = |call| match call {
            Call::Publish(payloads, updates) => Some((payloads.join(" "), updates)),
            _ => None,
        };
        self.calls().into_iter().filter_map(publication).collect()
    }

    pub(crate) fn refuse_completions(&self, times: usize) {
        self.fake.completions_to_refuse.store(times, Relaxed);
    }

    /// Lets the next checkpoint succeed for all but its last partition.
    pub(crate) fn forget_result(&self) {
        self.fake.forgets_result.store(true, Relaxed);
    }

    /// Lets a stream keep no order of keys.
    pub(crate) fn unorder(&self, stream: &str) {
        self.fake.unordered.lock().unwrap().push(stream.to_owned());
    }

    pub(crate) fn joins(&self) -> Vec<JoinOptions> {
        self.fake.joins.lock().unwrap().clone()
    }

    /// What was asked of the driver, but for pauses and resumes.
    pub(crate) fn steps(&self) -> Vec<Call> {
        let steps = self.calls().into_iter();
        steps
            .filter(|call| !matches!(call, Call::Pause(_) | Call::Resume(_)))
            .collect()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.fake.calls.lock().unwrap().clone()
    }

    pub(crate) async fn until_called(&self, call: Call) {
        until(|| self.calls().contains(&call)).await;
    }
}

/// Waits for a condition; fails after ten minutes of the paused clock.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), wait)
        .await
        .expect("the condition never came true");
}

pub(crate) fn partition(id: &str) -> Partition {
    Partition::new("s", id)
}

#[derive(Debug)]
struct Backend(Arc<Fake>);

#[async_trait]
impl driver::Backend for Backend {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees {
            exactly_once: true,
            key_order: true,
            ..Guarantees::default()
        }
    }

    fn check_stream_name(&self, name: &str) -> Result<(), String> {
        driver::check_stream_name(name)
    }

    async fn open_producer(
        &self,
        stream: &str,
        required: &[Guarantee],
    ) -> Result<Arc<dyn driver::Producer>> {
        self.0.check("open producer", stream, required)?;
        Ok(match stream {
            "dead" => Arc::new(LetterProducer(self.0.letters.clone())),
            _ => Arc::new(NoProducer),
        })
    }

    fn check_group_name(&self, name: &str) -> Result<(), String> {
        driver::check_group_name(name)
    }

    fn consumer_group(&self, _group: &str) -> Arc<dyn driver::ConsumerGroup> {
        Arc::new(Group(self.0.clone()))
    }

    fn checkpoints(&self, _group: &str) -> Arc<dyn driver::Checkpoints> {
        unimplemented!("no test reads checkpoints from the fake")
    }

    fn streams(&self) -> Arc<dyn driver::Streams> {
        unimplemented!("no test administers streams of the fake")
    }
}

/// A stream that a pipeline publishes to: its limits are asked, nothing is sent.
#[derive(Debug)]
struct NoProducer;

#[async_trait]
impl driver::Producer for NoProducer {
    fn limits(&self) -> StreamLimits {
        StreamLimits {
            record_bytes: 10,
            key_bytes: 10,
            key_chars: None,
            empty_key: true,
            text_key: false,
            batch_records: 10,
            batch_bytes: 100,
        }
    }

    fn pipelining(&self) -> Pipelining {
        Pipelining::Ordered
    }

    fn validate(&self, record: &Record) -> Result<()> {
        match record.headers.contains("odd") {
            true => Err(Error::new(ErrorKind::Invalid, "send", "an odd header")),
            false => Ok(()),
        }
    }

    fn route(&self, _record: &Record) -> Option<u64> {
        None
    }

    async fn send(&self, _records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>> {
        unimplemented!("an exactly-once pipeline sends nothing by its producer")
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Group(Arc<Fake>);

#[async_trait]
impl driver::ConsumerGroup for Group {
    async fn join(&self, join: JoinOptions) -> Result<Arc<dyn driver::Membership>> {
        let _may_return = self.0.membership.lock().await;
        for stream in &join.streams {
            self.0.check("join", stream, &join.required)?;
        }
        self.0.joins.lock().unwrap().push(join);
        Ok(self.0.clone())
    }
}

impl Fake {
    fn called(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }

    fn check(&self, operation: &'static str, stream: &str, required: &[Guarantee]) -> Result<()> {
        let unordered = self.unordered.lock().unwrap();
        if !required.contains(&Guarantee::KeyOrder) || !unordered.iter().any(|it| it == stream) {
            return Ok(());
        }
        let message = "the stream places records itself, as scripted";
        Err(Error::new(ErrorKind::Unsupported, operation, message).with_stream(stream))
    }

    /// Panics without a word on standard error if the test asked for it.
    fn may_panic(&self, method: &'static str) {
        if self
            .panics
            .lock()
            .unwrap()
            .take_if(|at| *at == method)
            .is_some()
        {
            std::panic::resume_unwind(Box::new("the driver panics on purpose"));
        }
    }
}

#[async_trait]
impl driver::Membership for Fake {
    fn id(&self) -> &str {
        "member"
    }

    async fn next(&self) -> Result<Vec<Event>> {
        self.may_panic("next");
        match self.events.lock().await.recv().await {
            Some(event) => event.map(|event| vec![event]),
            None => std::future::pending().await,
        }
    }

    async fn checkpoint(&self, updates: &[CheckpointUpdate]) -> Vec<Result<()>> {
        self.may_panic("checkpoint");
        let store = |update: &CheckpointUpdate| match self.refusals.lock().unwrap().pop() {
            Some(error) => Err(error),
            None => {
                let offset = update.position.offset().unwrap();
                self.called(Call::Checkpoint(update.partition.id().to_owned(), offset));
                Ok(())
            }
        };
        let asked = match self.forgets_result.swap(false, Relaxed) {
            true => &updates[..updates.len() - 1],
            false => updates,
        };
        asked.iter().map(store).collect()
    }

    async fn publish(
        &self,
        stream: &str,
        records: &[Record],
        updates: &[CheckpointUpdate],
    ) -> Result<()> {
        self.may_panic("publish");
        assert_eq!(stream, "results");
        let payload = |record: &Record| {
            let payload = record.payload.as_deref().unwrap_or_default();
            String::from_utf8_lossy(payload).into_owned()
        };
        let place = |update: &CheckpointUpdate| {
            let offset = update.position.offset().unwrap();
            (update.partition.id().to_owned(), offset)
        };
        let payloads: Vec<String> = records.iter().map(payload).collect();
        self.called(Call::Publish(
            payloads.clone(),
            updates.iter().map(place).collect(),
        ));
        let _may_return = self.publishing.lock().await;
        if let Some(error) = self.refusals.lock().unwrap().pop() {
            return Err(error);
        }
        let (refused, kind) = &*self.refused_results.lock().unwrap();
        if payloads.iter().any(|payload| refused.contains(payload)) {
            let cause = std::io::Error::other("the broker's own words");
            return Err(Error::new(*kind, "publish", "as scripted").with_source(cause));
        }
        if payloads.len() > *self.payloads_in_time.lock().unwrap() {
            return Err(Error::new(ErrorKind::Timeout, "publish", "as scripted"));
        }
        let mut progress = self.progress.lock().unwrap();
        assert!(!updates.is_empty());
        for update in updates {
            let of = (update.partition.id().to_owned(), update.epoch.0);
            let position = update.position.offset();
            assert!(
                progress.get(&of).copied() < position,
                "{update:?} is stored already"
            );
            progress.extend(position.map(|position| (of, position)));
        }
        self.stored.lock().unwrap().extend(payloads);
        Ok(())
    }

    async fn release(&self, partition: &Partition, _epoch: Epoch) -> Result<()> {
        self.may_panic("release");
        self.called(Call::Release(partition.id().to_owned()));
        Ok(())
    }

    async fn complete(&self, partition: &Partition, _epoch: Epoch) -> Result<()> {
        self.may_panic("complete");
        self.called(Call::Complete(partition.id().to_owned()));
        let refused = |left: usize| left.checked_sub(1);
        match self
            .completions_to_refuse
            .fetch_update(Relaxed, Relaxed, refused)
        {
            Ok(_) => Err(Error::new(
                ErrorKind::Unavailable,
                "complete",
                "as scripted",
            )),
            Err(_) => Ok(()),
        }
    }

    fn pause(&self, partition: &Partition, _epoch: Epoch) {
        self.may_panic("pause");
        self.called(Call::Pause(partition.id().to_owned()));
    }

    fn resume(&self, partition: &Partition, _epoch: Epoch) {
        self.may_panic("resume");
        self.called(Call::Resume(partition.id().to_owned()));
    }

    async fn leave(&self) -> Result<()> {
        self.may_panic("leave");
        self.called(Call::Leave);
        let _may_return = self.membership.lock().await;
        Ok(())
    }
}
