//! Consuming: a group by name, its options, and the three ways to consume.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::consumer::options::ConsumerOptions;
use crate::consumer::runtime::control_state::ControlState;
use crate::consumer::runtime::dead_letter_sink::DeadLetterSink;
use crate::consumer::runtime::handler::Handler;
use crate::consumer::runtime::member::Member;
use crate::{
    Batch, BatchFailure, Checkpoint, Consumer, Delivery, Error, ErrorKind, Failure, Guarantee,
    OnDataLoss, OnExhausted, Producer, ProducerBuilder, Record, Result, Retry, RunFuture, Start,
    driver, guarantee, naming,
};

use super::dead_letters::{self, DeadLetterProducer};
use super::handle::ConsumerHandle;
use super::handlers::{Batches, Each};
use super::handover::Handover;
use super::pull::PullHandler;
use super::transform::{self, TransactionalHandler};

/// A group of members that share streams, with its own progress (Kafka: consumer group; Kinesis:
/// KCL application).
///
/// A handle with options; cheap to clone. Each call of [`run`](Self::run),
/// [`run_batches`](Self::run_batches), [`transform_to`](Self::transform_to) or [`join`](Self::join) adds
/// one member.
#[derive(Debug, Clone)]
pub struct ConsumerGroup {
    backend: Arc<dyn driver::Backend>,
    name: Arc<str>,
    options: ConsumerOptions,
}

impl ConsumerGroup {
    pub(crate) fn new(backend: Arc<dyn driver::Backend>, name: String) -> Self {
        let options = ConsumerOptions::default();
        Self {
            backend,
            name: name.into(),
            options,
        }
    }

    /// Adds a stream to read. Consuming needs at least one.
    #[must_use]
    pub fn stream(mut self, name: impl Into<Arc<str>>) -> Self {
        self.options.streams.push(name.into());
        self
    }

    /// Sets where the group begins if it has no progress yet. Default [`Start::Earliest`].
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.options.start = start;
        self
    }

    /// Sets the name of this member for logs and tools. It need not be unique. Default: the backend
    /// generates one.
    #[must_use]
    pub fn member(mut self, name: impl Into<String>) -> Self {
        self.options.member = Some(name.into());
        self
    }

    /// Sets how many keys this member handles concurrently; for a pull consumer, the maximum number of
    /// unsettled deliveries. 1 to 100,000, default 16.
    ///
    /// Two records of one key of one stream are never handled at the same time. Equal keys of different
    /// streams are independent.
    #[must_use]
    pub fn concurrency(mut self, keys: usize) -> Self {
        self.options.concurrency = keys;
        self
    }

    /// Sets the failure policy. Default: 20 attempts with exponential backoff, which take 6 to 12
    /// minutes, then the consumer stops with the error.
    #[must_use]
    pub fn on_failure(mut self, retry: Retry) -> Self {
        self.options.retry = retry;
        self
    }

    /// Sets how long one attempt of a handler may take. 1 ms to 1 day; by default there is no limit.
    ///
    /// An attempt that takes longer is dropped and fails with
    /// [`FailureKind::Timeout`](crate::FailureKind::Timeout). The failure policy
    /// ([`on_failure`](Self::on_failure)) applies, with an [`Error`] of kind `Timeout` as the reason.
    /// Work that the handler has started elsewhere can wait for [`Delivery::lost`]. A handler that
    /// blocks its thread cannot be dropped. For a pull consumer it is the time from
    /// [`next`](Consumer::next) to `ack`: a delivery that was not pulled yet does not time out.
    #[must_use]
    pub fn handler_timeout(mut self, timeout: Duration) -> Self {
        self.options.handler_timeout = Some(timeout);
        self
    }

    /// Sets the age at which the first unsettled record of a partition is reported as stalled, by the
    /// event `millstream.consumer.stalled`. The age counts from its first attempt, including retries.
    /// 1 s to 1 day, default 1 min.
    ///
    /// The record is only reported; [`handler_timeout`](Self::handler_timeout) ends an attempt. The same
    /// record is in [`PartitionStats::oldest_unsettled`](crate::PartitionStats::oldest_unsettled).
    #[must_use]
    pub fn stall_warning(mut self, age: Duration) -> Self {
        self.options.stall_warning = age;
        self
    }

    /// Sets what happens when retention has removed records before they were read. Default
    /// [`OnDataLoss::Fail`].
    #[must_use]
    pub fn on_data_loss(mut self, on_data_loss: OnDataLoss) -> Self {
        self.options.on_data_loss = on_data_loss;
        self
    }

    /// Sets how many records of one partition are received beyond its first unsettled one. It may be
    /// exceeded by one fetch.
    ///
    /// At this bound the partition stops for all of its keys until that record is settled. So it limits
    /// how far other keys run ahead of a key that waits. After a crash, as many records may be delivered
    /// again, plus those that were settled since the last checkpoint
    /// ([`checkpoint_interval`](Self::checkpoint_interval),
    /// [`checkpoint_records`](Self::checkpoint_records)). 1 to 10,000,000, default 10,000.
    #[must_use]
    pub fn max_unsettled_per_partition(mut self, records: usize) -> Self {
        self.options.max_unsettled_per_partition = records;
        self
    }

    /// Sets how many bytes of unsettled records this member holds, across all partitions. It may be
    /// exceeded by one batch per partition. One fetch returns about a sixteenth of it at most. At least 1,
    /// default 64 MiB.
    ///
    /// Half of it is divided into equal shares, one per partition; the other half is lent to the
    /// partitions that need more. So a stuck partition pauses only itself. A pending handler keeps the
    /// whole batch of its record in memory, including settled records. An exactly-once pipeline may hold
    /// the same amount again in unpublished results, together with the records that they came from.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.options.buffer_bytes = bytes;
        self
    }

    /// Sets how many records are fetched at once, at most
    /// [`max_unsettled_per_partition`](Self::max_unsettled_per_partition). 1 to 100,000, default
    /// 1,000.
    #[must_use]
    pub fn max_poll_records(mut self, records: usize) -> Self {
        self.options.max_poll_records = records;
        self
    }

    /// Sets how often progress is stored. 1 ms to 1 day, default 1 s; 100 ms for an exactly-once
    /// pipeline ([`transform_to`](Self::transform_to)), whose results become visible with it.
    #[must_use]
    pub fn checkpoint_interval(mut self, interval: Duration) -> Self {
        self.options.checkpoint_interval = Some(interval);
        self
    }

    /// Sets after how many settled records progress is stored even if the interval is not over. At
    /// least 1, default 10,000. In an exactly-once pipeline results count as well, and twice as many may
    /// wait to be published.
    #[must_use]
    pub fn checkpoint_records(mut self, records: u64) -> Self {
        self.options.checkpoint_records = records;
        self
    }

    /// Sets how long records in flight may take to settle when the member closes or a partition moves
    /// to another member. 0 to 1 day, default 10 s.
    ///
    /// After that, their handlers are dropped, and the records are delivered again. When a partition
    /// moves, the last tenth of this time, at most 1 s, is reserved for the last checkpoint and the
    /// release.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.options.drain_timeout = timeout;
        self
    }

    /// Requires `guarantee`: consuming fails at its start with `Unsupported` on a backend that does not
    /// promise it, or if one of the group's streams does not keep it. The error has the reason, and says what to
    /// change. A consumer whose stream stops keeping the guarantee while it runs ends with the same error.
    ///
    /// The streams that the group writes to (of a pipeline, of dead letters) are not checked; see
    /// [`ProducerBuilder::require`](crate::ProducerBuilder::require).
    ///
    /// [`Guarantee::ExactlyOnce`] is about pipelines: [`transform_to`](Self::transform_to) also fails if
    /// its producer is of another client, since it would not be exactly-once. For the other ways to
    /// consume only the backend is checked, and the effects of their handlers are at least once.
    #[must_use]
    pub fn require(mut self, guarantee: Guarantee) -> Self {
        self.options.required.push(guarantee);
        self
    }

    /// Returns the group's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Joins the group and calls `handler` for each record until `shutdown` is ready; then drains,
    /// checkpoints and leaves.
    ///
    /// A shutdown during the join ends it at once. A later shutdown takes at most
    /// [`drain_timeout`](Self::drain_timeout) plus 6 s, 16 s by default.
    ///
    /// Keys of one partition are handled at the same time and settle in any order. A sink that skips
    /// what it has applied must store the [position](Delivery::position) of each **key**, not of the
    /// partition, or use [`run_batches`](Self::run_batches).
    ///
    /// `Ok` settles the record. An error or a panic is a failure, to which the policy
    /// [`on_failure`](Self::on_failure) applies. Handlers run on the task that awaits this future:
    /// move heavy computation to other threads (`tokio::task::spawn_blocking`) or run more members.
    ///
    /// ```
    /// # use millstream_core::{Delivery, Record, StreamSpec};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> millstream_core::Result<()> {
    /// # let client = millstream_memory::Config::default().connect().await?;
    /// # client.streams().create(StreamSpec::new("car-raw-events")).await?;
    /// async fn handle(delivery: Delivery) -> Result<(), std::io::Error> {
    ///     println!("{:?} says {:?}", delivery.key(), delivery.payload());
    ///     Ok(())
    /// }
    ///
    /// let shutdown = async { /* a signal */ };
    /// client.group("notifications").stream("car-raw-events").run(handle, shutdown).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Invalid` for options out of their bounds, `Unsupported` for a required guarantee, `NotFound`,
    /// `Denied` and other errors of joining; `Handler` when a record has failed and the policy is to
    /// stop; `DataLoss`; errors of the broker that are not retryable; `Timeout` if settled records could
    /// not be checkpointed before the drain timeout of the shutdown: they are delivered again.
    ///
    /// # Cancel safety
    /// Dropping the future is a crash: records that were handled and not yet checkpointed are delivered
    /// again, to the remaining members, after the session timeout.
    pub fn run<H, F, E>(
        &self,
        handler: H,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> RunFuture
    where
        H: Fn(Delivery) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        self.run_handler(Ok(Each(handler)), shutdown)
    }

    /// Calls `handler` with batches: deliveries of one partition in stored order. Otherwise like
    /// [`run`](Self::run).
    ///
    /// `batch` bounds the batches by number (`500` is [`Batch::records(500)`](Batch::records)), by bytes,
    /// and by the time that a batch may wait to be full. The handler has one batch of a partition at a
    /// time, so a sink can store one [position](Delivery::position) per partition, with the
    /// [stream id](Delivery::stream_id). [`concurrency`](Self::concurrency) bounds the number of batches
    /// at the same time.
    ///
    /// `Ok` settles the whole batch. [`BatchFailure::at`] settles the deliveries before the failed one
    /// at once, and retries from there. Any other error fails the whole batch, which is retried; when
    /// its attempts are used up, it is handed out in halves down to the single deliveries that fail, and
    /// **only these** are dead-lettered, skipped, or stop the consumer.
    ///
    /// ```
    /// # use millstream_core::{BatchFailure, Delivery, Record, StreamSpec};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> millstream_core::Result<()> {
    /// # let client = millstream_memory::Config::default().connect().await?;
    /// # client.streams().create(StreamSpec::new("car-raw-events")).await?;
    /// async fn store(batch: Vec<Delivery>) -> Result<(), BatchFailure> {
    ///     for (index, delivery) in batch.iter().enumerate() {
    ///         let text = std::str::from_utf8(delivery.payload());
    ///         println!("{}", text.map_err(|error| BatchFailure::at(index, error))?);
    ///     }
    ///     Ok(())
    /// }
    ///
    /// let shutdown = async { /* a signal */ };
    /// let group = client.group("store").stream("car-raw-events");
    /// group.run_batches(500, store, shutdown).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run); `Invalid` if `batch` is out of its bounds.
    pub fn run_batches<H, F>(
        &self,
        batch: impl Into<Batch>,
        handler: H,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> RunFuture
    where
        H: Fn(Vec<Delivery>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), BatchFailure>> + Send + 'static,
    {
        let batch = batch.into();
        let batches = batch
            .validate()
            .map(|()| Batches { handler, batch })
            .map_err(|error| error.with_group(self.name.clone()));
        self.run_handler(batches, shutdown)
    }

    /// Runs a pipeline: publishes the records that `transform` returns to the stream of `producer`.
    /// Otherwise like [`run`](Self::run).
    ///
    /// **Exactly once**, where the backend promises it ([`Guarantee::ExactlyOnce`]) and `producer` was
    /// opened from the same [`Client`](crate::Client) as this group (or a clone of it). Results are
    /// buffered until the next checkpoint, which stores them and the progress in one step. Each result
    /// is in the stream once, after any crash. Results become visible with the checkpoint
    /// ([`checkpoint_interval`](Self::checkpoint_interval), 100 ms by default here;
    /// [`checkpoint_records`](Self::checkpoint_records)). The producer provides the stream and its
    /// limits and sends nothing itself: its bounds and timeout do not apply. Its
    /// [`stored`](crate::ProducerStats::stored) counts the results, as
    /// [`ConsumerStats::published`](crate::ConsumerStats::published) does. Other effects
    /// of `transform` are at least once, and so are dead letters: one may be stored twice after a
    /// crash. A [`reset`](Self::reset) to an earlier position produces results again.
    ///
    /// **At least once** otherwise: the producer sends the results, and the delivery is settled when
    /// the broker has acknowledged all of them. After a crash some are stored twice. Use
    /// [`require(Guarantee::ExactlyOnce)`](Self::require) to make that an error.
    ///
    /// Open the producer from the group's client also where at least once is enough. Streams of two
    /// clients are not compared, since two brokers may have streams of one name. So a pipeline whose
    /// producer writes by another client into a stream that the group reads is not refused, and
    /// handles its own results without end.
    ///
    /// In both cases the results of one key are stored in the order of its records, and a record that
    /// is dead-lettered or skipped has no result.
    ///
    /// A result that the stream does not accept is a permanent failure of the delivery that it came
    /// from. The policy [`on_failure`](Self::on_failure) applies: the consumer stops, or the delivery is
    /// skipped or dead-lettered. This also holds for a result of an exactly-once pipeline that only the
    /// broker refuses, when it is published. Until such a delivery is settled, nothing behind it in its
    /// partition is published; its key does not wait, since its handler has succeeded.
    ///
    /// ```
    /// # use millstream_core::{BatchFailure, Delivery, Record, StreamSpec};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> millstream_core::Result<()> {
    /// # let client = millstream_memory::Config::default().connect().await?;
    /// # client.streams().create(StreamSpec::new("car-raw-events")).await?;
    /// # client.streams().create(StreamSpec::new("processed-events")).await?;
    /// async fn clean(delivery: Delivery) -> Result<Option<Record>, std::io::Error> {
    ///     let is_event = delivery.payload().starts_with(b"{");
    ///     Ok(is_event.then(|| delivery.to_record().header("cleaned-by", "v1")))
    /// }
    ///
    /// let processed = client.producer("processed-events").open().await?;
    /// let shutdown = async { /* a signal */ };
    /// let group = client.group("cleaner").stream("car-raw-events");
    /// group.transform_to(&processed, clean, shutdown).await?;
    /// processed.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run); `Unsupported` if exactly-once is required and `producer` is of another
    /// client; `Invalid` if `producer` is of the group's client and the group reads its stream.
    pub fn transform_to<H, F, I, E>(
        &self,
        producer: &Producer,
        transform: H,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> RunFuture
    where
        H: Fn(Delivery) -> F + Send + Sync + 'static,
        F: Future<Output = Result<I, E>> + Send + 'static,
        I: IntoIterator<Item = Record> + Send + 'static,
        I::IntoIter: Send,
        E: Into<Failure> + Send + 'static,
    {
        let same_client = producer.belongs_to(&self.backend);
        let producer = producer.clone();
        let transform = Arc::new(transform);
        let target = match same_client
            && self
                .options
                .streams
                .iter()
                .any(|s| **s == *producer.stream())
        {
            true => Err(self.reads_its_own_results(producer.stream())),
            false => Ok(()),
        };
        if same_client && self.backend.guarantees().exactly_once {
            let (stream, counts) = (producer.stream().into(), producer.clone());
            let handler = move |delivery| {
                let (producer, transform) = (producer.clone(), transform.clone());
                async move {
                    let records = transform(delivery).await.map_err(Into::into)?;
                    transform::validate(&producer, records)
                }
            };
            let handler = target.map(|()| TransactionalHandler {
                handler,
                stream,
                producer: counts,
            });
            return self.run_handler(handler, shutdown);
        }
        let handler = move |delivery| {
            let (producer, transform) = (producer.clone(), transform.clone());
            async move {
                let records = transform(delivery).await.map_err(Into::into)?;
                transform::send_and_wait(&producer, records).await?;
                Ok::<(), Failure>(())
            }
        };
        let allowed = match self.options.required.contains(&Guarantee::ExactlyOnce) {
            // A backend without support is detected first.
            true => Err(self.unsupported(
                "ExactlyOnce is required, but the pipeline's producer is of another client, \
                 open it from the client of the group",
            )),
            false => target.map(|()| Each(handler)),
        };
        self.run_handler(allowed, shutdown)
    }

    /// Joins the group as a pull consumer, for applications that own the loop.
    ///
    /// # Errors
    /// The errors of joining, as for [`run`](Self::run).
    ///
    /// # Cancel safety
    /// A dropped call leaves at most a member that the others replace after the session timeout.
    pub async fn join(&self) -> Result<Consumer> {
        self.validate()?;
        let control = Arc::new(ControlState::default());
        let is_timed = self.options.handler_timeout.is_some();
        let handover = Arc::new(Handover::new(is_timed));
        let member = self
            .start_member(PullHandler::new(handover.clone()), control.clone())
            .await?;
        Ok(Consumer::new(member, handover, control))
    }

    /// Reads the group's stored progress in each partition of each stream that it has progress in.
    ///
    /// # Errors
    /// `NotFound` if no member ever joined.
    pub async fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        self.check_name("read checkpoints")?;
        self.backend.checkpoints(&self.name).read().await
    }

    /// Moves the group in `stream` to `to` (replay), even while members run: they drain, checkpoint,
    /// and continue from the new position.
    ///
    /// # Errors
    /// `NotFound` for an unknown group or stream.
    ///
    /// # Cancel safety
    /// If the call is dropped, the group is either moved or not.
    pub async fn reset(&self, stream: &str, to: Start) -> Result<()> {
        self.check_name("reset")?;
        naming::stream(&*self.backend, "reset", stream)?;
        self.backend.checkpoints(&self.name).reset(stream, to).await
    }

    fn run_handler<W: Handler>(
        &self,
        handler: Result<W>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> RunFuture {
        let control = Arc::new(ControlState::default());
        let (group, handle) = (self.clone(), ConsumerHandle(control.clone()));
        RunFuture::new(handle, async move {
            group.validate()?;
            let mut shutdown = Box::pin(shutdown);
            let member = tokio::select! {
                biased;
                member = group.start_member(handler?, control.clone()) => member?,
                // A join may take as long as a session. Nothing was received yet, so there is
                // nothing to hand over.
                () = &mut shutdown => return Ok(()),
                () = control.shutdown_requested() => return Ok(()),
            };
            member.run(shutdown).await
        })
    }

    async fn start_member<W: Handler>(
        &self,
        handler: W,
        control: Arc<ControlState>,
    ) -> Result<Member<W>> {
        let dead_letters: Option<Arc<dyn DeadLetterSink>> = match self.options.retry.exhausted() {
            OnExhausted::DeadLetter(to) => {
                let stream = to.stream.clone();
                let producer = ProducerBuilder::new(self.backend.clone(), stream)
                    .timeout(dead_letters::SEND_TIMEOUT)
                    .close_timeout(dead_letters::CLOSE_TIMEOUT);
                let letters = DeadLetterProducer(producer.open().await?);
                letters
                    .check_headers()
                    .map_err(|error| error.with_group(self.name.clone()))?;
                Some(Arc::new(letters))
            }
            OnExhausted::Stop | OnExhausted::Skip => None,
        };
        Member::join(
            &self.backend,
            self.name.clone(),
            self.options.clone(),
            handler,
            dead_letters,
            control,
        )
        .await
    }

    fn check_name(&self, operation: &'static str) -> Result<()> {
        let checked = self.backend.check_group_name(&self.name);
        checked.map_err(|rule| naming::invalid_group(operation, &self.name, &rule))
    }

    fn validate(&self) -> Result<()> {
        self.check_name("join")?;
        self.options
            .validate()
            .map_err(|error| error.with_group(self.name.clone()))?;
        for stream in &self.options.streams {
            naming::stream(&*self.backend, "join", stream)
                .map_err(|error| error.with_group(self.name.clone()))?;
        }
        guarantee::check_required(&*self.backend, &self.options.required, "join")
            .map_err(|error| error.with_group(self.name.clone()))
    }

    fn reads_its_own_results(&self, stream: &str) -> Error {
        let message =
            format!("the pipeline writes to {stream}, which the group reads, use another stream");
        Error::new(ErrorKind::Invalid, "join", message).with_group(self.name.clone())
    }

    fn unsupported(&self, message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Unsupported, "join", message).with_group(self.name.clone())
    }
}
