//! A producing client of librdkafka. Whole calls go in, whole reports come out.
//!
//! rdkafka's own producers make a C string of the topic for each record, copy its payload, and go through an
//! `Arc` and a callback for each report. Here the topic is looked up once, payloads are read in place, and one
//! event carries the reports of a whole request.
//!
//! # Ownership
//!
//! A record's `opaque` is the address of its [`Slot`], and the slot has the address of its
//! [`Batch`]. A batch that is handed over keeps itself alive until its last slot has a result
//! ([`Batch::keep`]). So the payload, the slot and the batch exist as long as librdkafka has a record of the
//! batch, even after the caller is gone.
//!
//! If a client is destroyed while records have no result, their batches are never released. That leaks
//! memory, and is sound. The owner drains the client first.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use millstream_core::Record;
use rdkafka::bindings as rd;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::{RDKafkaRespErr, RDKafkaType};
use rdkafka::{ClientConfig, ClientContext};

use super::code::{self, NO_ERROR};
use super::delivery::{Batch, Disposition, Report, Slot};
use super::record::{self, ANY_PARTITION};
use super::timestamp;
use super::token;

/// The number of reports that are taken out of an event at once.
const CHUNK: usize = 512;

/// The time that librdkafka's threads have to notice a flush. They need longer when all cores are busy. The records
/// then linger as others do.
const FLUSH_TIMEOUT_MS: c_int = 2;

/// The result of a [`poll`](Native::poll).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Polled {
    TimedOut,
    Event,
    /// The client cannot send any more: see [`Native::fatal_error`].
    Fatal,
}

/// The records that a [`purge`](Native::purge) takes back.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purge {
    /// Records that were not sent.
    Unsent,
    /// Records that were not sent, and records without a response.
    All,
}

/// A client that sends to one topic. The context receives everything that librdkafka reports besides deliveries.
pub(crate) struct Native<C: ClientContext + 'static> {
    /// Dropped by hand: after its topic and its queue.
    client: ManuallyDrop<Client<C>>,
    topic: *mut rd::rd_kafka_topic_t,
    queue: *mut rd::rd_kafka_queue_t,
    /// The number of records whose reports have not been handled.
    held: AtomicU64,
}

// SAFETY: librdkafka's handles may be used from any thread, also concurrently, as its introduction says
// (https://github.com/confluentinc/librdkafka/blob/master/INTRODUCTION.md, "Threads and callbacks").
unsafe impl<C: ClientContext> Send for Native<C> {}
// SAFETY: as above.
unsafe impl<C: ClientContext> Sync for Native<C> {}

/// The buffer in which records are laid out for a call of librdkafka. It is kept so that it is allocated once.
#[derive(Default)]
pub(crate) struct Scratch(Vec<rd::rd_kafka_message_t>);

// SAFETY: it is empty between two calls of `produce`.
unsafe impl Send for Scratch {}

/// Handles the report of a record: fills the record's slot, or leaves it open.
pub(crate) trait OnReport: FnMut(&Arc<Batch>, usize, Report) -> Disposition {}

impl<F: FnMut(&Arc<Batch>, usize, Report) -> Disposition> OnReport for F {}

impl<C: ClientContext> Native<C> {
    /// Opens a client. Sends no request.
    pub(crate) fn open(settings: &ClientConfig, context: C, topic: &str) -> KafkaResult<Self> {
        let name = CString::new(topic)?;
        let config = settings.create_native_config()?;
        let events = rd::RD_KAFKA_EVENT_DR
            | rd::RD_KAFKA_EVENT_ERROR
            | rd::RD_KAFKA_EVENT_LOG
            | rd::RD_KAFKA_EVENT_STATS
            | rd::RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH;
        // SAFETY: the configuration is alive, and belongs to no client yet.
        unsafe { rd::rd_kafka_conf_set_events(config.ptr(), events) };
        let client = Client::new(settings, config, RDKafkaType::RD_KAFKA_PRODUCER, context)?;
        let rk = client.native_ptr();
        // SAFETY: the client is alive, the name is a C string, and there are no settings whose ownership would
        // pass to librdkafka.
        let topic = unsafe { rd::rd_kafka_topic_new(rk, name.as_ptr(), ptr::null_mut()) };
        if topic.is_null() {
            return Err(KafkaError::Global(RDKafkaErrorCode::InvalidTopic));
        }
        // SAFETY: the client is alive.
        let queue = unsafe { rd::rd_kafka_queue_get_main(rk) };
        Ok(Self {
            client: ManuallyDrop::new(client),
            topic,
            queue,
            held: AtomicU64::new(0),
        })
    }

    pub(crate) fn client(&self) -> &Client<C> {
        &self.client
    }

    pub(crate) fn context(&self) -> &C {
        self.client.context()
    }

    /// Returns why the client cannot send any more.
    pub(crate) fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.client.fatal_error()
    }

    /// Returns whether there are records whose reports are still to come.
    pub(crate) fn holds_records(&self) -> bool {
        self.held.load(Acquire) > 0
    }

    /// Hands these records of a batch to librdkafka, in this order. Does not wait. Records that are refused at once are
    /// passed to `on_report`.
    ///
    /// The records must be open, and librdkafka must not have them already.
    pub(crate) fn produce(
        &self,
        batch: &Arc<Batch>,
        indexes: &[usize],
        scratch: &mut Scratch,
        on_report: &mut impl OnReport,
    ) {
        if indexes.is_empty() {
            return;
        }
        batch.keep();
        let mut call = ProduceCall {
            native: self,
            batch,
            run: &mut scratch.0,
            filled: 0,
            on_report,
        };
        for &index in indexes {
            call.take(index, batch.record(index));
        }
        call.flush();
        if let Some(complete) = batch.settle(call.filled) {
            complete.wake();
        }
    }

    /// Waits for an event, and passes its delivery reports to `on_report`. Must not be called concurrently.
    pub(crate) fn poll(&self, timeout: Duration, on_report: &mut impl OnReport) -> Polled {
        // Rounded up: a wait that ends too early is started again and again until the time is over.
        let timeout = c_int::try_from(timeout.as_micros().div_ceil(1_000)).unwrap_or(c_int::MAX);
        // SAFETY: the queue is alive.
        let event = unsafe { rd::rd_kafka_queue_poll(self.queue, timeout) };
        if event.is_null() {
            return Polled::TimedOut;
        }
        let _destroyed_at_the_end = OwnedEvent(event);
        // SAFETY: the event is alive until it is destroyed, when this returns or panics.
        unsafe {
            match rd::rd_kafka_event_type(event) {
                rd::RD_KAFKA_EVENT_DR => {
                    self.take_reports(event, on_report);
                    Polled::Event
                }
                rd::RD_KAFKA_EVENT_ERROR => self.take_error(event),
                rd::RD_KAFKA_EVENT_LOG => {
                    self.take_log(event);
                    Polled::Event
                }
                rd::RD_KAFKA_EVENT_STATS => {
                    let json = CStr::from_ptr(rd::rd_kafka_event_stats(event));
                    self.context().stats_raw(json.to_bytes());
                    Polled::Event
                }
                rd::RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH => {
                    self.renew_token(event);
                    Polled::Event
                }
                _ => Polled::Event,
            }
        }
    }

    /// Ends the linger of the records that the client has. Waits until its threads have had time to notice.
    pub(crate) fn flush_lingering(&self) {
        // SAFETY: the client is alive. Reports arrive as events, so this call invokes no callback.
        unsafe { rd::rd_kafka_flush(self.client.native_ptr(), FLUSH_TIMEOUT_MS) };
    }

    /// Makes a waiting [`poll`](Self::poll) return.
    pub(crate) fn wake_poll(&self) {
        // SAFETY: the queue is alive.
        unsafe { rd::rd_kafka_queue_yield(self.queue) };
    }

    /// Takes records back. Their reports say whether they were sent. Blocks for as long as librdkafka's threads are
    /// busy.
    pub(crate) fn purge(&self, records: Purge) {
        let flags = match records {
            Purge::Unsent => rd::RD_KAFKA_PURGE_F_QUEUE,
            Purge::All => rd::RD_KAFKA_PURGE_F_QUEUE | rd::RD_KAFKA_PURGE_F_INFLIGHT,
        };
        // SAFETY: the client is alive, and is a producer; not being one is the only error.
        unsafe { rd::rd_kafka_purge(self.client.native_ptr(), flags) };
    }

    /// Handles the delivery reports of an event.
    ///
    /// # Safety
    /// The event is alive, and carries delivery reports of this client.
    unsafe fn take_reports(&self, event: *mut rd::rd_kafka_event_t, on_report: &mut impl OnReport) {
        let mut messages = [ptr::null::<rd::rd_kafka_message_t>(); CHUNK];
        loop {
            // SAFETY: the array has as many elements as the call is given.
            let count =
                unsafe { rd::rd_kafka_event_message_array(event, messages.as_mut_ptr(), CHUNK) };
            if count == 0 {
                return;
            }
            self.held.fetch_sub(count as u64, Release);
            let mut now: *const Batch = ptr::null();
            let mut filled = 0;
            for &message in &messages[..count] {
                // SAFETY: messages are alive as long as their event. Each record carries the address of its
                // slot, and the slot is alive with its batch. The batch keeps itself alive until all its
                // records are counted. This one is counted by `settle`, below, when the batch is no longer
                // borrowed.
                unsafe {
                    let slot = (*message)._private.cast::<Slot>().cast_const();
                    let home: *const Batch = (*slot).home.load(Acquire);
                    if home != now {
                        settle(now, filled);
                        (now, filled) = (home, 0);
                    }
                    let batch = ManuallyDrop::new(Arc::from_raw(home));
                    let index = slot.offset_from(batch.slots().as_ptr()) as usize;
                    let report = report(message);
                    filled +=
                        usize::from(on_report(&batch, index, report) == Disposition::Answered);
                }
            }
            // SAFETY: as above.
            unsafe { settle(now, filled) };
        }
    }

    /// Handles an error event.
    ///
    /// # Safety
    /// The event is alive, and an error.
    unsafe fn take_error(&self, event: *mut rd::rd_kafka_event_t) -> Polled {
        // SAFETY: by the contract above. The text lives as long as the event.
        let (code, reason) = unsafe {
            let reason = text(rd::rd_kafka_event_error_string(event));
            (code::of_event(event), reason)
        };
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__FATAL as i32 {
            return Polled::Fatal;
        }
        let error = KafkaError::Global(code::named(code));
        self.context().error(error, reason.trim());
        Polled::Event
    }

    /// Handles a log event.
    ///
    /// # Safety
    /// The event is alive, and a log line.
    unsafe fn take_log(&self, event: *mut rd::rd_kafka_event_t) {
        let (mut facility, mut line) = (ptr::null(), ptr::null());
        let mut level = 0;
        // SAFETY: by the contract above. The texts live as long as the event.
        unsafe {
            if rd::rd_kafka_event_log(event, &mut facility, &mut line, &mut level) != 0 {
                return;
            }
            let (facility, line) = (text(facility), text(line));
            let level = log_level(level);
            self.context().log(level, facility.trim(), line.trim());
        }
    }

    /// Handles an event that requests a token.
    ///
    /// # Safety
    /// The event is alive, and requests a token.
    unsafe fn renew_token(&self, event: *mut rd::rd_kafka_event_t) {
        // SAFETY: by the contract above. The text lives as long as the event.
        let settings = unsafe {
            let settings = rd::rd_kafka_event_config_string(event);
            (!settings.is_null()).then(|| text(settings))
        };
        let set = self
            .context()
            .generate_oauth_token(settings.as_deref())
            .map_err(|e| e.to_string())
            .and_then(|token| token::set(&self.client, token));
        if let Err(reason) = set {
            // Only a message that was made up could contain a NUL.
            let reason = CString::new(reason.replace('\0', " ")).unwrap_or_default();
            let rk = self.client.native_ptr();
            // SAFETY: the client is alive, and the text is a C string.
            unsafe { rd::rd_kafka_oauthbearer_set_token_failure(rk, reason.as_ptr()) };
        }
    }
}

impl<C: ClientContext> Drop for Native<C> {
    /// Destroys the client. Blocks until librdkafka's threads have ended.
    fn drop(&mut self) {
        // SAFETY: each is destroyed once, and the client last.
        unsafe {
            rd::rd_kafka_topic_destroy(self.topic);
            rd::rd_kafka_queue_destroy(self.queue);
            ManuallyDrop::drop(&mut self.client);
        }
    }
}

/// An event that is also destroyed when its callback panics.
struct OwnedEvent(*mut rd::rd_kafka_event_t);

impl Drop for OwnedEvent {
    fn drop(&mut self) {
        // SAFETY: the event is alive, and nothing reads it after this.
        unsafe { rd::rd_kafka_event_destroy(self.0) };
    }
}

/// One batch that is being handed to librdkafka.
struct ProduceCall<'a, C: ClientContext + 'static, F> {
    native: &'a Native<C>,
    batch: &'a Arc<Batch>,
    /// Records that may be sent in one call of librdkafka.
    run: &'a mut Vec<rd::rd_kafka_message_t>,
    /// The number of slots that were filled by a refusal.
    filled: usize,
    on_report: &'a mut F,
}

impl<C: ClientContext, F: OnReport> ProduceCall<'_, C, F> {
    fn take(&mut self, index: usize, record: &Record) {
        let slot = &self.batch.slots()[index];
        self.native.held.fetch_add(1, Relaxed);
        match timestamp::of(record) {
            None if record.headers.is_empty() => {
                self.run.push(record::laid_out(record, opaque(slot)));
            }
            _ => {
                self.flush();
                if let Err(err) = self.native.produce_one(record, slot) {
                    self.refuse(index, err);
                }
            }
        }
    }

    /// Sends the run. All its records get the same deadline, so none times out before another.
    fn flush(&mut self) {
        let Ok(count) = c_int::try_from(self.run.len()) else {
            unreachable!("a call has fewer records than there are numbers of this type")
        };
        // SAFETY: the topic is alive. Keys are copied. Payloads stay in place until the report, since the
        // batch holds a reference to itself for that. No flag makes librdkafka free them.
        let taken = unsafe {
            rd::rd_kafka_produce_batch(
                self.native.topic,
                ANY_PARTITION,
                0,
                self.run.as_mut_ptr(),
                count,
            )
        };
        if taken < count {
            let first = self.batch.slots().as_ptr();
            for message in std::mem::take(self.run) {
                if message.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                    let slot = message._private.cast::<Slot>().cast_const();
                    // SAFETY: the slot is one of this batch.
                    let index = unsafe { slot.offset_from(first) } as usize;
                    self.refuse(index, message.err);
                }
            }
        }
        self.run.clear();
    }

    fn refuse(&mut self, index: usize, err: RDKafkaRespErr) {
        self.native.held.fetch_sub(1, Release);
        let report = Report::Failed {
            partition: ANY_PARTITION,
            code: err as i32,
            maybe_stored: false,
        };
        let disposition = (self.on_report)(self.batch, index, report);
        self.filled += usize::from(disposition == Disposition::Answered);
    }
}

impl<C: ClientContext> Native<C> {
    /// Sends one record that the batch call cannot: with headers or a timestamp.
    fn produce_one(&self, record: &Record, slot: &Slot) -> Result<(), RDKafkaRespErr> {
        let client = self.client.native_ptr();
        // SAFETY: client and topic are alive, and reports are read with the slot's address. For the data that is
        // read later, see `ProduceCall::flush`.
        unsafe { record::produce(client, self.topic, record, opaque(slot), 0) }
    }
}

/// Returns the opaque by which a report identifies its slot.
fn opaque(slot: &Slot) -> *mut c_void {
    ptr::from_ref(slot).cast_mut().cast()
}

/// Counts filled slots of a batch.
///
/// # Safety
/// That many slots were filled and not counted yet. If it is zero, `batch` may be any pointer.
unsafe fn settle(batch: *const Batch, filled: usize) {
    if filled == 0 {
        return;
    }
    // SAFETY: a batch with slots that are not counted is alive. The borrow ends here, before the
    // batch may be freed.
    let complete = unsafe { (*batch).settle(filled) };
    if let Some(complete) = complete {
        complete.wake();
    }
}

/// Reads a delivery report.
///
/// # Safety
/// The message is of a delivery report that is alive.
unsafe fn report(message: *const rd::rd_kafka_message_t) -> Report {
    // SAFETY: by the contract above. Fields are read one by one, without a reference to the whole struct: see
    // `code`.
    let (code, partition, offset) = unsafe {
        (
            code::of_field(&raw const (*message).err),
            (*message).partition,
            (*message).offset,
        )
    };
    if code == NO_ERROR {
        return Report::Stored { partition, offset };
    }
    // SAFETY: by the contract above.
    let status = unsafe { rd::rd_kafka_message_status(message) };
    Report::Failed {
        partition,
        code,
        maybe_stored: status != rd::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED,
    }
}

/// Copies a C string. Null is the empty text.
///
/// # Safety
/// `text` is a C string, or null.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by the contract above.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// Converts a syslog level.
fn log_level(level: c_int) -> RDKafkaLogLevel {
    match level {
        0 => RDKafkaLogLevel::Emerg,
        1 => RDKafkaLogLevel::Alert,
        2 => RDKafkaLogLevel::Critical,
        3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        _ => RDKafkaLogLevel::Debug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_of_a_newer_broker_keeps_its_number() {
        const INCONSISTENT_TOPIC_ID: i32 = 103;
        // librdkafka keeps the status after the message, in a struct that begins with the message.
        let mut room = [[0_u64; 16]; 16];
        let message = room.as_mut_ptr().cast::<rd::rd_kafka_message_t>();
        // SAFETY: there is room for the struct. All zeros are valid: numbers, null pointers, the code of no
        // error, and the status of a record that is not stored. The code is four bytes wide.
        let report = unsafe {
            (*message).partition = 7;
            (&raw mut (*message).err)
                .cast::<i32>()
                .write(INCONSISTENT_TOPIC_ID);
            report(message)
        };
        let failed = Report::Failed {
            partition: 7,
            code: INCONSISTENT_TOPIC_ID,
            maybe_stored: false,
        };
        assert_eq!(report, failed);
    }
}
