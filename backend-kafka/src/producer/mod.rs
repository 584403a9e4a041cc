//! Writes records to one topic.
//!
//! A call of `send` becomes a [`Batch`], and is woken once, when all its records have results. Each part uses only
//! the parts below it:
//!
//! * [`Producer`] checks records, and returns their results.
//! * [`delivery_thread`] serves the delivery reports of a client, and replaces a client that has failed.
//! * [`record_sender`] hands records to the current client, under one lock.
//! * [`client`] is one client of librdkafka.
//! * [`accumulator`] decides which records are sent, wait, or are sent again. It makes no calls.
//!
//! # Why the order of a key is preserved
//!
//! All records of a key are in one partition. They are handed to librdkafka in the order of the calls
//! ([`accumulator`]), and librdkafka has one queue for each partition. The broker accepts the requests of an
//! idempotent producer for a partition only in their order, each once, through all retries. That suffices as long as
//! nothing fails. *Within a call*, no record may be stored behind a failed one of its key either:
//!
//! * **Rejected here** (too large, a timestamp that cannot be sent): no record of the call was sent yet, and the later
//!   ones of the key are held back ([`Batch::hold_back`]).
//! * **Rejected by the broker**: it rejects a request as a whole, and the next requests in flight as out of sequence.
//!   librdkafka would send those again, and they would be stored behind the gap. With `enable.gapless.guarantee` it
//!   fails the client instead, before it sends anything more. Records that were not stored are returned, and are held
//!   back or sent again in their order ([`record_sender`]). So a record that the broker rejects fails together with
//!   later ones of its key, and with no others.
//! * **Too large together**: a topic whose limit was lowered rejects batches of small records. They are returned as
//!   well, and are sent again in smaller batches ([`batch_limit`]).
//! * **Timed out**: librdkafka fails records in its queue by their deadlines, which it checks once a second. The
//!   records of a call that have neither headers nor a timestamp are handed over together and have one deadline.
//!   Others have deadlines that are microseconds apart. Records that still wait here fail at the deadline of their
//!   call, which is before those.
//! * **The client has failed** otherwise: as for a rejection by the broker.
//!
//! Three gaps are left. The first two neither reorder records nor store them twice. First, a check between two
//! deadlines of a call fails one record before the other, and if the broker is back within that second, the other is
//! stored. Second, a broker that does not know a producer in a partition yet accepts any sequence as its first: if it
//! rejects a client's first request there, it may store the second one that was in flight. (The other records of the
//! first request are not sent again then: they would be stored too late.) The third gap takes a broker that stops for
//! longer than [`DRAIN_TIMEOUT`](delivery_thread::DRAIN_TIMEOUT) while its client is replaced, and that the
//! controller waits for even longer: when the broker continues, it may store a record that has failed with `Timeout`
//! behind later ones of its key.
//!
//! Between calls there is no such rule: a later call stores its records even if an earlier one has failed.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use millstream_core::driver::{self, Pipelining, Rejected, StreamLimits};
use millstream_core::{Error, ErrorKind, Partition, Position, Record, RecordMetadata, Result};
use rdkafka::ClientConfig;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::mpsc;

use self::accumulator::{Accumulator, InFlightThrottle};
use self::delivery_thread::DeliveryThread;
use self::record_sender::{LargestBatch, RecordSender};
use self::size_limits::SizeLimits;
use self::topic_health::TopicHealth;
use crate::connection::context::Context;
use crate::native::delivery::{Answer, Batch, Report};
use crate::native::partitioner;
use crate::native::record::unsendable;
use crate::{config, error};

mod accumulator;
mod batch_limit;
mod client;
mod delivery_errors;
mod delivery_thread;
mod linger_flusher;
mod open;
mod record_sender;
mod settings;
pub(crate) mod size_limits;
#[cfg(test)]
mod tests;
mod topic_health;

pub(crate) use open::{largest_batch, open};

/// The operation of errors during opening.
const OPEN: &str = "open producer";

struct Producer {
    stream: Arc<str>,
    limits: SizeLimits,
    timeout: Duration,
    sender: Arc<RecordSender>,
    health: Option<TopicHealth>,
    /// Closed when the last client is gone.
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
    /// The number of partitions when the producer was opened, if it was known.
    partition_count: Option<NonZeroUsize>,
    /// The names of the known partitions, by their numbers.
    partitions: Mutex<Vec<Option<Partition>>>,
}

impl Producer {
    /// Opens a producer. `settings` are common to all its clients. `partitions` is the known number of
    /// partitions. `largest_batch` requests the topic's limit again.
    fn new(
        stream: Arc<str>,
        mut settings: ClientConfig,
        context: Context,
        config: &config::Producer,
        limits: SizeLimits,
        partitions: usize,
        largest_batch: LargestBatch,
    ) -> Result<Self> {
        settings::complete(&mut settings, config, limits.message_max);
        let limit = settings::limit(&settings, limits.message_max);
        let request = settings::request(&settings, limit);
        let throttle = InFlightThrottle::new(request, config.linger, partitions);
        // Without linger, librdkafka sends the first of the records that it is handed at once, and the others wait for
        // its response.
        let throttle = match config.throttle_in_flight && !config.linger.is_zero() {
            true => throttle,
            false => throttle.turned_off(),
        };
        let accumulator = Accumulator::new(throttle, Instant::now());
        let sender = Arc::new(RecordSender::new(
            stream.clone(),
            settings,
            context,
            accumulator,
            limit,
            largest_batch,
        ));
        let (alive, ended) = mpsc::channel(1);
        let client = sender.open_client(OPEN)?;
        DeliveryThread::start(sender.clone(), client, alive, OPEN)?;
        Ok(Self {
            stream,
            limits,
            timeout: config.timeout,
            sender,
            health: None,
            ended: tokio::sync::Mutex::new(ended),
            partition_count: NonZeroUsize::new(partitions),
            partitions: Mutex::default(),
        })
    }

    /// Uses `health` to find out why records have timed out, if the client does not know.
    fn with_health(mut self, health: TopicHealth) -> Self {
        self.health = Some(health);
        self
    }

    /// Returns why a record cannot be sent at all.
    fn check(&self, record: &Record) -> Result<()> {
        let (taken, largest) = (
            SizeLimits::record_bytes(record),
            self.limits.max_record_bytes(),
        );
        if taken > largest {
            let message = format!(
                "the record has {taken} bytes with the lengths of its headers, use at most {largest}"
            );
            return Err(self.error(ErrorKind::TooLarge, message));
        }
        match unsendable(record) {
            Some(message) => Err(self.error(ErrorKind::Invalid, message)),
            None => Ok(()),
        }
    }

    /// Returns why records have timed out, if it is known.
    async fn timeout_cause(&self) -> Option<Error> {
        if let Some(cause) = self.sender.timeout_cause() {
            return Some(cause);
        }
        let trouble = match &self.health {
            Some(health) => health.look().await,
            None => None,
        };
        // The last error may be of a broker that the records did not need.
        trouble.or_else(|| self.sender.recent_error())
    }

    fn error(&self, kind: ErrorKind, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::new(kind, "send", message).with_stream(self.stream.clone())
    }

    /// Returns the results of a batch. `timeout_cause` is why records have timed out, if that is known.
    fn results(
        &self,
        batch: &Batch,
        timeout_cause: Option<&Error>,
    ) -> Vec<Result<RecordMetadata, Rejected>> {
        let mut partitions = self
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A failing broker fails thousands of records for the same reason.
        let mut last = None;
        let answers = batch.answers().map(|(record, answer)| {
            let error = match answer {
                Answer::Reported(Report::Stored { partition, offset }) => {
                    match u64::try_from(offset) {
                        Ok(offset) => {
                            let partition = self.partition(&mut partitions, partition);
                            return Ok(RecordMetadata::new(partition, Position::from(offset)));
                        }
                        Err(_) => self.error(
                            ErrorKind::Timeout,
                            "stored, but the broker has forgotten where",
                        ),
                    }
                }
                Answer::Reported(Report::Failed {
                    code, maybe_stored, ..
                }) => {
                    let key = (code, maybe_stored);
                    match &last {
                        Some((last, error)) if *last == key => Error::clone(error),
                        _ => {
                            let error = self.failure(code, maybe_stored, timeout_cause);
                            last = Some((key, error.clone()));
                            error
                        }
                    }
                }
                Answer::Refused(error) => error.clone(),
                Answer::HeldBack => self.error(
                    ErrorKind::Unavailable,
                    "not sent, since an earlier record of its key failed",
                ),
            };
            Err(Rejected::new(record.clone(), error))
        });
        answers.collect()
    }

    fn partition(&self, known: &mut Vec<Option<Partition>>, number: i32) -> Partition {
        let index = usize::try_from(number).expect("librdkafka numbers partitions from 0");
        if known.len() <= index {
            known.resize(index + 1, None);
        }
        let name = || Partition::new(self.stream.clone(), number.to_string());
        known[index].get_or_insert_with(name).clone()
    }

    /// Returns the error of a record for librdkafka's error `code`.
    fn failure(&self, code: i32, maybe_stored: bool, timeout_cause: Option<&Error>) -> Error {
        const REMOVED: i32 = RDKafkaRespErr::RD_KAFKA_RESP_ERR__DESTROY as i32;
        const GONE: i32 = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART as i32;
        let code = match code {
            // For a record that was in a partition queue when its topic was found to be missing. The client itself is
            // not destroyed as long as it has records.
            REMOVED => GONE,
            code => code,
        };
        let error = error::from_number("send", code).with_stream(self.stream.clone());
        if code == TIMED_OUT {
            let reason = timeout_cause
                .map_or("look at the brokers, or raise producer.timeout", |cause| {
                    cause.message()
                });
            let message = format!("no broker stored it within {:?}: {reason}", self.timeout);
            let source = timeout_cause.cloned().unwrap_or(error);
            return self.error(ErrorKind::Timeout, message).with_source(source);
        }
        if !maybe_stored || error.kind() == ErrorKind::Timeout {
            return error;
        }
        let message = "sent and not answered, it may or may not be stored";
        self.error(ErrorKind::Timeout, message).with_source(error)
    }
}

const TIMED_OUT: i32 = RDKafkaRespErr::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT as i32;

fn has_timed_out(batch: &Batch) -> bool {
    batch.answers().any(|(_, answer)| {
        matches!(
            answer,
            Answer::Reported(Report::Failed {
                code: TIMED_OUT,
                ..
            })
        )
    })
}

#[async_trait]
impl driver::Producer for Producer {
    fn limits(&self) -> StreamLimits {
        self.limits.limits()
    }

    fn pipelining(&self) -> Pipelining {
        Pipelining::Ordered
    }

    fn validate(&self, record: &Record) -> Result<()> {
        self.check(record)
    }

    /// Returns the partition of a record with a key. If partitions were added since the producer was opened, some routes
    /// stand for several partitions.
    fn route(&self, record: &Record) -> Option<u64> {
        let partition = partitioner::murmur2(record.key.as_ref()?, self.partition_count?);
        Some(partition as u64)
    }

    async fn send(&self, records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>> {
        let deadline = Instant::now() + self.timeout;
        let batch = Arc::new(Batch::new(records, deadline, |record| self.check(record)));
        if !batch.is_answered() {
            self.sender.send(&batch);
            batch.answered().await;
        }
        let cause = match has_timed_out(&batch) {
            true => self.timeout_cause().await,
            false => None,
        };
        self.results(&batch, cause.as_ref())
    }

    async fn close(&self) -> Result<()> {
        self.sender.close();
        // No message is ever sent. The channel closes when the last delivery thread ends.
        let _ended = self.ended.lock().await.recv().await;
        self.sender.failure().map_or(Ok(()), Err)
    }
}

/// Starts the end of the client, which continues on its own thread.
impl Drop for Producer {
    fn drop(&mut self) {
        self.sender.close();
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}
