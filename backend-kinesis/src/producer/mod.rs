//! Writes records to one stream.
//!
//! A call of `send` passes its records to the [`sender`], a separate task, over one channel. The order
//! in which calls are first polled is the order of that channel. The sender adds them to the [`accumulator`],
//! builds requests from the records that it releases, at most `requests` at a time, and retries records that
//! were not stored, until the call's deadline.
//!
//! # Why the order of a key holds
//!
//! A response has a result for each entry, so of two entries of a key the first may fail and the second be
//! stored. A request without a response may be stored at any time until its timeout. So no record of
//! a key is sent before all earlier ones of it have their results:
//!
//! * **Without aggregation** ([`by_key`]), one record of a key is in flight, in all requests
//!   together. Other keys continue, whatever happens to this one.
//! * **With aggregation** ([`by_shard`]), one aggregate of a shard is in flight. It is stored or not
//!   as a whole. This also holds while shards split and merge.
//!
//! A record that is not known to be stored is sent again, so records may be stored twice. The first copies of all
//! records are in order: a record is sent for the first time after all before it are stored or have failed.
//!
//! Within a call, a record behind a failed one of its key fails without being stored. There is no such
//! dependency between calls.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use millstream_core::driver::{self, Pipelining, Rejected, StreamLimits};
use millstream_core::{Error, ErrorKind, Record, RecordMetadata, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::accumulator::RecordAccumulator;
use self::by_key::ByKey;
use self::by_shard::ByShard;
use self::calls::{SendResults, Submission, Ticket};
use self::explicit::Addressed;
use self::request::MOST_BYTES;
use self::sender::Sender;
use self::settings::ProducerSettings;
use self::shard_map::ShardMap;
use self::transport::Transport;
use crate::aggregate::{Address, AggregateBuilder, admit, keyless};
use crate::config::Aggregation;
use crate::stream::HashKey;

mod accumulator;
mod by_key;
mod by_shard;
mod calls;
mod explicit;
mod latency;
mod open;
mod rate_limiter;
mod refresh;
mod request;
mod request_size;
mod retry_delay;
mod sender;
mod settings;
mod shard_map;
#[cfg(test)]
mod tests;
mod transport;

pub(crate) use open::open;

/// A call returns when all its records have results, so large calls make all records wait for the slowest.
const CALL_RECORDS: usize = 100;

/// The largest partition key in characters. AWS does not say what it counts; UTF-16 code units are accepted in any case.
const KEY_CHARS: usize = 256;

struct Producer {
    stream: Arc<str>,
    settings: ProducerSettings,
    /// As long as any partition key of records without a key.
    keyless: Bytes,
    /// Unbounded, because the runtime bounds the records without a result.
    submissions: mpsc::UnboundedSender<Submission>,
    sender: Mutex<Option<JoinHandle<()>>>,
}

impl Producer {
    fn start(
        stream: Arc<str>,
        settings: ProducerSettings,
        transport: impl Transport,
        map: ShardMap,
    ) -> Self {
        let now = Instant::now();
        match settings.config.aggregation {
            Aggregation::Off => {
                let accumulator = ByKey::new(settings.clone(), map, now);
                Self::start_with(stream, settings, transport, accumulator)
            }
            Aggregation::Kpl => {
                let accumulator = ByShard::new(settings.clone(), map, now);
                Self::start_with(stream, settings, transport, accumulator)
            }
        }
    }

    fn start_with(
        stream: Arc<str>,
        settings: ProducerSettings,
        transport: impl Transport,
        accumulator: impl RecordAccumulator,
    ) -> Self {
        let (submissions, received) = mpsc::unbounded_channel();
        let (transport, most) = (Arc::new(transport), settings.config.requests);
        let sender = Sender::new(stream.clone(), transport, accumulator, received, most);
        Self {
            stream,
            settings,
            keyless: keyless(shard_map::TRIALS - 1),
            submissions,
            sender: Mutex::new(Some(tokio::spawn(sender.run()))),
        }
    }

    /// Returns the reason why a record cannot be sent at all.
    fn check(&self, record: &Record, hash: Option<HashKey>) -> Result<()> {
        admit(record, &self.settings.config).map_err(|e| e.with_stream(self.stream.clone()))?;
        let address = Address {
            partition_key: record.key.as_ref().unwrap_or(&self.keyless),
            explicit_hash_key: hash,
        };
        let (size, most) = (
            AggregateBuilder::new().size_with(address, record),
            self.settings.record_bytes,
        );
        if size > most {
            let message = format!(
                "the record has {size} bytes as it is stored, with its key and \
                 headers: use at most {most}"
            );
            return Err(self.error(ErrorKind::TooLarge, message));
        }
        Ok(())
    }

    /// Separates the records that are sent from those that are rejected here.
    fn tickets(&self, addressed: &Addressed, rejected: &mut SendResults) -> Vec<Ticket> {
        let count = addressed.records.len();
        let mut tickets = Vec::with_capacity(count);
        let mut failed = Vec::new();
        for ((record, hash), index) in addressed.iter().zip(0..) {
            let checked = match &record.key {
                Some(key) if failed.contains(&key) => {
                    let message = "not sent, since an earlier record of its key was rejected";
                    Err(self.error(ErrorKind::Unavailable, message))
                }
                _ => hash
                    .map_err(|wrong| self.error(ErrorKind::Invalid, wrong.to_owned()))
                    .and_then(|hash| self.check(record, hash).map(|()| hash)),
            };
            match checked {
                Err(error) => {
                    rejected.resize_with(count, || None);
                    rejected[index as usize] = Some(Err(error));
                    failed.extend(&record.key);
                }
                Ok(explicit) => {
                    let key = record.key.as_ref().map(HashKey::of);
                    tickets.push(Ticket {
                        call: 0,
                        index,
                        attempts: 0,
                        bytes: record.size(),
                        key,
                        hash: explicit.or(key).unwrap_or(HashKey(0)),
                        is_explicit: explicit.is_some(),
                    });
                }
            }
        }
        tickets
    }

    fn error(&self, kind: ErrorKind, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::new(kind, "send", message).with_stream(self.stream.clone())
    }
}

#[async_trait]
impl driver::Producer for Producer {
    fn limits(&self) -> StreamLimits {
        StreamLimits {
            record_bytes: self.settings.record_bytes,
            // Of 3 bytes each, at most: those of 4 count twice.
            key_bytes: KEY_CHARS * 3,
            key_chars: Some(KEY_CHARS),
            empty_key: false,
            text_key: true,
            batch_records: CALL_RECORDS,
            batch_bytes: MOST_BYTES,
        }
    }

    fn pipelining(&self) -> Pipelining {
        Pipelining::Ordered
    }

    fn validate(&self, record: &Record) -> Result<()> {
        self.check(record, None)
    }

    fn route(&self, _record: &Record) -> Option<u64> {
        None
    }

    async fn send(&self, records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>> {
        let sent = Instant::now();
        let mut rejected = SendResults::new();
        let records = Arc::new(records);
        let header = self.settings.config.explicit_hash_key_header.as_deref();
        let addressed = Addressed::of(&records, header);
        let tickets = self.tickets(&addressed, &mut rejected);
        let mut sent_results = SendResults::new();
        if !tickets.is_empty() {
            let (reply, reply_receiver) = oneshot::channel();
            let submission = Submission {
                records: addressed.records,
                tickets,
                sent,
                deadline: sent + self.settings.config.timeout,
                reply,
            };
            // If the sender has ended, it drops the reply channel too.
            let _ = self.submissions.send(submission);
            sent_results = reply_receiver.await.unwrap_or_default();
        }
        let mut rejected = rejected.into_iter();
        let mut sent_results = sent_results.into_iter();
        let results = records.iter().map(|record| {
            let rejection = rejected.next().flatten();
            let sent_result = sent_results.next().flatten();
            let result = rejection.or(sent_result).unwrap_or_else(|| {
                let message = "the producer's task has ended, it may or may not be stored";
                Err(self.error(ErrorKind::Timeout, message))
            });
            result.map_err(|error| Rejected::new(record.clone(), error))
        });
        results.collect()
    }

    async fn close(&self) -> Result<()> {
        let sender = self
            .sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(sender) = sender {
            sender.abort();
            // It was aborted, or had ended.
            let _ = sender.await;
        }
        Ok(())
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}
