//! Sends dead letters with a producer: the conversion of a record into a letter, in one of several shapes.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, sleep_until};

use crate::consumer::runtime::dead_letter_sink::{DeadLetterSink, DeadRecord};
use crate::telemetry::{Causes, event};
use crate::{Delivery, Error, ErrorKind, Headers, Producer, Record, Result};

/// How long the producer may retry a letter before it is sent again here.
pub(super) const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the producer may flush when the member has left.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Delay between attempts to send a letter. Each has already been retried by the producer.
const PAUSE: Duration = Duration::from_secs(1);

/// The time after which a letter that is not stored is reported by a warning.
const SLOW: Duration = Duration::from_secs(1);

/// The headers that a letter has besides those of the record. If the record was a letter itself, they
/// replace its own.
const OWN_HEADERS: [&str; 9] = [
    "millstream-dead-reason",
    "millstream-dead-attempts",
    "millstream-dead-group",
    "millstream-dead-stream",
    "millstream-dead-partition",
    "millstream-dead-position",
    "millstream-dead-timestamp",
    "millstream-dead-changed",
    "millstream-dead-key",
];

/// The longest reason that a letter carries, in characters; and the length of a reason that is cut.
const LONGEST_REASON: usize = 1_000;
const SHORT_REASON: usize = 100;

/// The dead letter stream of a member.
#[derive(Debug)]
pub(super) struct DeadLetterProducer(pub(super) Producer);

impl DeadLetterSink for DeadLetterProducer {
    fn store<'a>(&'a self, record: &'a DeadRecord) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(self.store(record))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // The records of letters that it could not send are unsettled and are delivered again. The
            // producer has logged that.
            let _ = self.0.close().await;
        })
    }
}

impl DeadLetterProducer {
    /// Checks that the stream takes headers, which letters of every shape have.
    ///
    /// A record is checked with and without a header, so that no other refusal of the stream counts.
    ///
    /// # Errors
    /// `Invalid`, with the reason of the driver, which says what to change. Without this check each
    /// member of the group in turn would stop at the first failed record.
    pub(super) fn check_headers(&self) -> Result<()> {
        let bare = Record::new("0").key("0");
        let probe = bare.clone().header("millstream-dead-position", "0");
        let refused = match (self.0.check(&bare), self.0.check(&probe)) {
            (Ok(()), Err(error)) if error.kind() == ErrorKind::Invalid => error,
            _ => return Ok(()),
        };
        let message = format!(
            "the dead letters cannot be stored, since they have headers: {}",
            refused.message()
        );
        Err(Error::new(ErrorKind::Invalid, "join", message).with_stream(self.0.stream()))
    }

    async fn store(&self, record: &DeadRecord) -> Result<Option<String>> {
        let mut shape = Shape::default();
        let mut warned = false;
        loop {
            let (letter, changed) = shape.letter(record);
            match self.send(letter, record, &mut warned).await {
                Ok(()) => return Ok((!changed.is_empty()).then(|| changed.join(","))),
                Err(error) if error.is_retryable() => {
                    self.warn(record, &mut warned, Some(&error));
                    sleep(PAUSE).await;
                }
                Err(error) => shape = shape.reduced(error.kind()).ok_or(error)?,
            }
        }
    }

    async fn send(&self, letter: Record, record: &DeadRecord, warned: &mut bool) -> Result<()> {
        let sent = async { self.0.send(letter).await?.await };
        tokio::pin!(sent);
        tokio::select! {
            biased;
            stored = &mut sent => return stored.map(drop),
            () = sleep_until(Instant::now() + SLOW) => self.warn(record, warned, None),
        }
        sent.await.map(drop)
    }

    /// Reports once that a letter is late.
    fn warn(&self, record: &DeadRecord, warned: &mut bool, error: Option<&Error>) {
        if std::mem::replace(warned, true) {
            return;
        }
        event!(
            warn, "millstream.consumer.dead_letter_delayed", group = %record.group,
            partition = %record.delivery.partition(), position = %record.delivery.position(),
            dead_letters = self.0.stream(),
            reason = error.map(|error| tracing::field::display(Causes(error))),
            "dead letter not stored yet, retrying; its key waits"
        );
    }
}

/// How much of a record and of its failure a letter carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    key: Key,
    reason: Reason,
    headers: bool,
    payload: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Kept,
    /// The letter has another key, and this one in a header.
    InHeader,
    LeftOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Kept,
    Cut,
    /// Attempts and group are left out too.
    LeftOut,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            key: Key::Kept,
            reason: Reason::Kept,
            headers: true,
            payload: true,
        }
    }
}

impl Shape {
    /// Returns the next shape after one that the stream has refused with `kind`, if there is one.
    fn reduced(self, kind: ErrorKind) -> Option<Self> {
        let mut next = self;
        match (kind, self.key, self.reason) {
            (ErrorKind::Invalid, Key::Kept, _) => next.key = Key::InHeader,
            (ErrorKind::TooLarge, _, Reason::Kept) => next.reason = Reason::Cut,
            (ErrorKind::TooLarge, _, Reason::Cut) => next.reason = Reason::LeftOut,
            (ErrorKind::Invalid | ErrorKind::TooLarge, ..) if self.headers => next.headers = false,
            (ErrorKind::Invalid | ErrorKind::TooLarge, ..) if self.payload => next.payload = false,
            (ErrorKind::Invalid | ErrorKind::TooLarge, Key::Kept | Key::InHeader, _) => {
                next.key = Key::LeftOut;
            }
            _ => return None,
        }
        Some(next)
    }

    /// Returns the letter in this shape, and the parts that are left out or changed.
    fn letter(self, dead: &DeadRecord) -> (Record, Vec<&'static str>) {
        let delivery = &dead.delivery;
        let mut changed = Vec::new();
        let mut letter = delivery.to_record();
        letter.timestamp = None;
        letter.headers = match self.headers {
            true => original_headers(delivery, &mut changed),
            false => {
                changed.push("headers");
                Headers::new()
            }
        };
        if !self.payload {
            changed.push("payload");
            // Not a tombstone, which would delete the letter itself in a compacted topic.
            letter.payload = Some(Bytes::new());
        }
        let headers = &mut letter.headers;
        match self.key {
            Key::Kept => {}
            Key::InHeader => {
                changed.push("key");
                if let Some(key) = delivery.key() {
                    headers.push("millstream-dead-key", key.clone());
                }
                letter.key = Some(substitute_key(delivery));
            }
            Key::LeftOut => {
                changed.push("key");
                letter.key = Some(substitute_key(delivery));
            }
        }
        let reason = |most| {
            dead.failure
                .to_string()
                .chars()
                .take(most)
                .collect::<String>()
        };
        match self.reason {
            Reason::Kept => headers.push("millstream-dead-reason", reason(LONGEST_REASON)),
            Reason::Cut => {
                changed.push("reason");
                headers.push("millstream-dead-reason", reason(SHORT_REASON));
            }
            Reason::LeftOut => changed.push("reason"),
        }
        if self.reason != Reason::LeftOut {
            headers.push("millstream-dead-attempts", delivery.attempt().to_string());
            headers.push("millstream-dead-group", dead.group.to_string());
        }
        headers.push("millstream-dead-stream", delivery.stream().to_owned());
        headers.push(
            "millstream-dead-partition",
            delivery.partition().id().to_owned(),
        );
        headers.push("millstream-dead-position", delivery.position().to_string());
        let timestamp = milliseconds(delivery.timestamp()).to_string();
        headers.push("millstream-dead-timestamp", timestamp);
        if !changed.is_empty() {
            headers.push("millstream-dead-changed", changed.join(","));
        }
        (letter, changed)
    }
}

/// Returns the record's headers, without those of an earlier letter, and with names that every
/// stream accepts.
fn original_headers(delivery: &Delivery, changed: &mut Vec<&'static str>) -> Headers {
    let is_odd = |name: &str| name.is_empty() || name.chars().any(char::is_control);
    let mut headers = delivery.headers().clone();
    headers.retain(|name, _| !OWN_HEADERS.contains(&name));
    if !headers.iter().any(|(name, _)| is_odd(name)) {
        return headers;
    }
    changed.push("header names");
    let mut renamed = Headers::new();
    for (name, value) in &headers {
        let name = match is_odd(name) {
            true => format!("millstream-dead-named-{}", percent_encoded(name)),
            false => name.to_owned(),
        };
        match value {
            Some(value) => renamed.push(name, value.clone()),
            None => renamed.push_null(name),
        }
    }
    renamed
}

fn percent_encoded(name: &str) -> String {
    let mut encoded = String::new();
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Returns a key that every stream accepts: letters of one key stay together and in order. The key for a record
/// without a key is derived from its position.
fn substitute_key(delivery: &Delivery) -> Bytes {
    let place = || format!("{}@{}", delivery.partition(), delivery.position()).into();
    let key = delivery.key().cloned().unwrap_or_else(place);
    // FNV-1a: the same in each version and process, as the order of the letters needs it.
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}").into()
}

/// Returns milliseconds since 1970, negative before that.
fn milliseconds(at: SystemTime) -> i128 {
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => after.as_millis() as i128,
        Err(before) => -(before.duration().as_millis() as i128),
    }
}
