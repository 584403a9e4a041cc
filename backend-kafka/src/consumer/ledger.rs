//! Records and progress in one step, by Kafka's transactions.
//!
//! A step is a whole transaction: begun, filled, given the offsets, committed. Nothing is open
//! between two of them, so a member that dies in good order leaves no transaction that its heirs
//! would have to wait for. One that dies within a step leaves one that the broker takes back after
//! [`LONGEST`]; until then the heirs are not told the progress of its partitions, and readers of
//! committed records not what follows in the partitions that it wrote to.
//!
//! A zombie is kept out twice. The offsets go with the member's generation, which the broker compares
//! (KIP-447): it refuses a step of a member whose partitions others have. And a member with a name
//! that stays (`instance_id`) has a transactional id that stays: its heir fences the producer of the
//! one before, and takes back what that one had open, at once.

use std::error::Error as StdError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millstream_core::{Error, ErrorKind, Record, Result};
use rdkafka::client::OAuthToken;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, TopicPartitionList};

use super::commits::not_stored;
use crate::connection::Connection;
use crate::connection::context::Context;
use crate::error;
use crate::native::record::produce_copies;

const OPERATION: &str = "publish";

/// How long a transaction may be open before the broker takes it back.
const LONGEST: Duration = Duration::from_secs(10);

/// How long a step is tried while it can still be taken back.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the end of a step is asked for that may stand or not.
const UNTIL_CERTAIN: Duration = Duration::from_secs(30);

/// One attempt of a call that librdkafka lets one repeat.
const TURN: Duration = Duration::from_secs(1);

/// The transactional producer of one member.
struct Ledger {
    producer: ThreadedProducer<LedgerContext>,
    /// Whether an error has made it useless: the next step needs a new one.
    broken: bool,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

/// What a step stores.
pub(super) struct Step {
    pub(super) stream: Arc<str>,
    pub(super) records: Vec<Record>,
    pub(super) offsets: TopicPartitionList,
    /// Who the member was before its ownership was looked at.
    pub(super) member: ConsumerGroupMetadata,
}

/// Why a step was not stored.
pub(super) struct Refused {
    pub(super) error: Error,
    /// Whether the broker knows the member no more.
    pub(super) gone: bool,
}

struct LedgerContext {
    base: Context,
    /// Why the first record of the step was not stored.
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for LedgerContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = Context::ENABLE_REFRESH_OAUTH_TOKEN;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.base.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.base.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn StdError>> {
        self.base.generate_oauth_token(config)
    }
}

impl ProducerContext for LedgerContext {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert_with(|| error.clone());
        }
    }
}

pub(super) fn settings(connection: &Connection, transactional_id: &str) -> ClientConfig {
    let longest = LONGEST.as_millis().to_string();
    let mut settings = connection.common();
    settings
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", &longest)
        .set("message.timeout.ms", &longest)
        .set("partitioner", "murmur2_random")
        .set("allow.auto.create.topics", "false")
        // A step waits for its records anyway, and is as long as its last one.
        .set("linger.ms", "0")
        // A step is bounded by the runtime.
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", i32::MAX.to_string());
    settings
}

impl Ledger {
    /// Opens it, which fences an earlier producer of the same id and takes back what it had open.
    /// Blocks.
    fn open(settings: &ClientConfig, base: Context) -> Result<Self> {
        let failed = Mutex::default();
        let context = LedgerContext { base, failed };
        let producer = ThreadedProducer::from_config_and_context(settings, context)
            .map_err(|e| error::from(OPERATION, e))?;
        let until = Instant::now() + PATIENCE;
        while let Err(failed) = producer.init_transactions(TURN) {
            if !is_retriable(&failed) || Instant::now() >= until {
                return Err(error::from(OPERATION, failed));
            }
        }
        Ok(Self {
            producer,
            broken: false,
        })
    }

    /// Stores a step, or nothing. Blocks.
    fn store(&mut self, step: &Step) -> Result<(), Refused> {
        let until = Instant::now() + PATIENCE;
        let filled = self.fill(step, until);
        match filled.and_then(|()| self.commit()) {
            Ok(()) => Ok(()),
            Err(failed) => Err(self.take_back(failed)),
        }
    }

    fn fill(&self, step: &Step, until: Instant) -> Result<(), Failed> {
        self.failure().take();
        self.producer.begin_transaction()?;
        produce_copies(&self.producer, &step.stream, &step.records)?;
        again(until, || {
            self.producer
                .send_offsets_to_transaction(&step.offsets, &step.member, TURN)
        })?;
        // The commit would wait for the records too, but with it begun there is no way back.
        Ok(self.producer.flush(PATIENCE)?)
    }

    /// Commits, and does not give up before it is known whether it stands.
    fn commit(&self) -> Result<(), Failed> {
        let until = Instant::now() + UNTIL_CERTAIN;
        again(until, || self.producer.commit_transaction(TURN)).map_err(|failed| Failed {
            // What may be repeated was begun, and may stand.
            uncertain: is_retriable(&failed.error),
            ..failed
        })
    }

    /// Makes sure that nothing of a step stands, or else that nobody believes so.
    fn take_back(&mut self, failed: Failed) -> Refused {
        let code = failed
            .error
            .rdkafka_error_code()
            .unwrap_or(RDKafkaErrorCode::Fail);
        if failed.uncertain {
            self.broken = true;
            let message =
                "the broker did not tell whether the step stands; whoever resumes finds out";
            let error = Error::new(ErrorKind::OutcomeUnknown, OPERATION, message);
            let error = error.with_source(failed.error);
            return Refused { error, gone: false };
        }
        // Before the taking back, which fails what is not sent yet.
        let record = self.failure().take();
        let record = record.or_else(|| match &failed.error {
            // librdkafka did not take it.
            error @ KafkaError::MessageProduction(_) => Some(error.clone()),
            _ => None,
        });
        let fatal = matches!(&failed.error, KafkaError::Transaction(e) if e.is_fatal());
        let until = Instant::now() + PATIENCE;
        // A producer that cannot take back is dropped: its step was not committed, and ends with the
        // next one of the same id or with the broker's patience.
        self.broken = fatal || again(until, || self.producer.abort_transaction(TURN)).is_err();
        refused(record, code)
    }

    fn failure(&self) -> MutexGuard<'_, Option<KafkaError>> {
        let context = self.producer.context();
        context
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a step means that was taken back: by what its first failed record and the call were told.
fn refused(record: Option<KafkaError>, code: RDKafkaErrorCode) -> Refused {
    // What was purged shares the fate of its step, and has no reason of its own.
    let record = record.filter(|record| {
        let code = record.rdkafka_error_code();
        let purged = [
            RDKafkaErrorCode::PurgeQueue,
            RDKafkaErrorCode::PurgeInflight,
        ];
        code.is_none_or(|code| !purged.contains(&code))
    });
    let codes = [
        record.as_ref().and_then(KafkaError::rdkafka_error_code),
        Some(code),
    ];
    let error = if codes.into_iter().flatten().any(is_fenced) {
        // No word on the member: it is told by its own client where another one has its name. The
        // next step has a new producer.
        let message = format!(
            "the broker took the step back: it was open for {LONGEST:?}, or another member \
             publishes by the same instance_id"
        );
        let source = record.unwrap_or(KafkaError::Global(code));
        Error::new(ErrorKind::Unavailable, OPERATION, message).with_source(source)
    } else if let Some(record) = record {
        error::from(OPERATION, record)
    } else {
        of_no_record(not_stored(OPERATION, code))
    };
    let gone = error.kind() == ErrorKind::Fenced;
    Refused { error, gone }
}

/// Keeps the kinds of refused records, on which the runtime looks for the record, for these: a step
/// may also be refused for a setting of the broker.
fn of_no_record(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Invalid | ErrorKind::TooLarge => {
            let message = error.message().to_owned();
            Error::new(ErrorKind::Unsupported, OPERATION, message).with_source(error)
        }
        _ => error,
    }
}

/// Whether a producer has been put out, which says nothing of the member.
fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
            | RDKafkaErrorCode::TransactionCoordinatorFenced
    )
}

struct Failed {
    error: KafkaError,
    uncertain: bool,
}

impl From<KafkaError> for Failed {
    fn from(error: KafkaError) -> Self {
        Self {
            error,
            uncertain: false,
        }
    }
}

/// Repeats a call while librdkafka says that it may be repeated.
fn again(until: Instant, mut call: impl FnMut() -> Result<(), KafkaError>) -> Result<(), Failed> {
    loop {
        match call() {
            Err(failed) if is_retriable(&failed) && Instant::now() < until => {}
            ended => return Ok(ended?),
        }
    }
}

fn is_retriable(failed: &KafkaError) -> bool {
    matches!(failed, KafkaError::Transaction(e) if RDKafkaError::is_retriable(e))
}

/// Where a member's ledger is made when it is first needed, or needed again.
#[derive(Debug)]
pub(super) struct Shelf {
    settings: ClientConfig,
    context: Context,
    ledger: Mutex<Option<Ledger>>,
}

impl Shelf {
    pub(super) fn new(settings: ClientConfig, context: Context) -> Self {
        let ledger = Mutex::default();
        Self {
            settings,
            context,
            ledger,
        }
    }

    /// Stores a step, or nothing. Blocks.
    pub(super) fn store(&self, step: &Step) -> Result<(), Refused> {
        let mut shelf = self.lock();
        let mut ledger = match shelf.take() {
            Some(ledger) => ledger,
            None => self
                .open()
                .map_err(of_no_record)
                .map_err(|error| Refused { error, gone: false })?,
        };
        let stored = ledger.store(step);
        if !ledger.broken {
            *shelf = Some(ledger);
        }
        stored
    }

    /// Takes back what the member before has left open that had the same name. Blocks.
    pub(super) fn take_back(&self) {
        let mut shelf = self.lock();
        if shelf.is_none() {
            // Whoever may not publish by this name has left nothing open.
            *shelf = self.open().ok();
        }
    }

    fn open(&self) -> Result<Ledger> {
        let (settings, context) = self.context.successor(&self.settings);
        Ledger::open(&settings, context)
    }

    /// Ends it, after the step that is under way. Blocks.
    pub(super) fn close(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Ledger>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode as Code;

    use super::*;

    /// The kind, and whether the member is gone.
    fn told(record: Option<Code>, code: Code) -> (ErrorKind, bool) {
        let refused = refused(record.map(KafkaError::MessageProduction), code);
        (refused.error.kind(), refused.gone)
    }

    #[test]
    fn a_refused_step_is_tried_again_unless_it_never_can_be() {
        for (record, code, expected) in [
            (None, Code::IllegalGeneration, ErrorKind::Unavailable),
            (
                None,
                Code::CoordinatorLoadInProgress,
                ErrorKind::Unavailable,
            ),
            (None, Code::OperationTimedOut, ErrorKind::Timeout),
            (
                None,
                Code::InvalidTransactionTimeout,
                ErrorKind::Unsupported,
            ),
            (None, Code::OffsetMetadataTooLarge, ErrorKind::Unsupported),
            (
                Some(Code::MessageSizeTooLarge),
                Code::MessageSizeTooLarge,
                ErrorKind::TooLarge,
            ),
            (Some(Code::InvalidTimestamp), Code::Fail, ErrorKind::Invalid),
            (Some(Code::InvalidRecord), Code::Fail, ErrorKind::Invalid),
            (None, Code::GroupAuthorizationFailed, ErrorKind::Denied),
            (
                Some(Code::TopicAuthorizationFailed),
                Code::TopicAuthorizationFailed,
                ErrorKind::Denied,
            ),
            (
                Some(Code::MessageTimedOut),
                Code::MessageTimedOut,
                ErrorKind::Timeout,
            ),
        ] {
            assert_eq!(told(record, code), (expected, false), "{record:?} {code:?}");
        }
    }

    #[test]
    fn what_was_not_sent_when_a_step_is_refused_does_not_hide_why() {
        for purged in [Code::PurgeQueue, Code::PurgeInflight] {
            assert_eq!(
                told(Some(purged), Code::IllegalGeneration),
                (ErrorKind::Unavailable, false)
            );
        }
    }

    #[test]
    fn only_a_member_that_the_group_has_put_out_is_gone() {
        for code in [Code::UnknownMemberId, Code::FencedInstanceId] {
            assert_eq!(told(None, code), (ErrorKind::Fenced, true));
        }
        // A step that was open for too long.
        for code in [Code::Fenced, Code::InvalidProducerEpoch] {
            let retried = (ErrorKind::Unavailable, false);
            assert_eq!(told(None, code), retried);
            assert_eq!(told(Some(code), code), retried);
        }
    }
}
