//! Requests of librdkafka's admin API: their options, and the queue that receives their responses.

use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::code::{self, NO_ERROR};

const NO_MEMORY: &str = "librdkafka aborts where it finds no memory";

/// Options of one request.
pub(super) struct Options(NonNull<sys::rd_kafka_AdminOptions_t>);

impl Options {
    /// Creates the options of a request. librdkafka fails the request with a timeout after this time (1 ms to 1 hour).
    pub(super) fn new<C: ClientContext>(
        client: &Client<C>,
        timeout: Duration,
    ) -> Result<Self, KafkaError> {
        // SAFETY: the client lives through the call, and the options do not need it after that.
        let options = unsafe {
            sys::rd_kafka_AdminOptions_new(
                client.native_ptr(),
                sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_ANY,
            )
        };
        let options = Self(NonNull::new(options).expect(NO_MEMORY));
        // SAFETY: the options live; without room for a text, none is written.
        let code = unsafe {
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options.as_ptr(),
                millis(timeout),
                ptr::null_mut(),
                0,
            )
        };
        match code as i32 {
            NO_ERROR => Ok(options),
            code => Err(KafkaError::AdminOp(code::named(code))),
        }
    }

    /// Sets the number that identifies the request in its response.
    pub(super) fn with_id(self, id: usize) -> Self {
        // SAFETY: the options live. librdkafka passes the number on, and never dereferences it.
        unsafe {
            sys::rd_kafka_AdminOptions_set_opaque(self.as_ptr(), ptr::without_provenance_mut(id));
        }
        self
    }

    /// Leaves out the data of open transactions.
    pub(super) fn read_committed(self) -> Self {
        let level = sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED;
        // SAFETY: the options live. An error would be ours to destroy. This level returns none.
        unsafe {
            let error = sys::rd_kafka_AdminOptions_set_isolation_level(self.as_ptr(), level);
            if !error.is_null() {
                sys::rd_kafka_error_destroy(error);
            }
        }
        self
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_AdminOptions_t {
        self.0.as_ptr()
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and destroyed only here. Requests have copied them.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.as_ptr()) }
    }
}

/// A queue of responses. Its creator must keep the client alive longer than the queue.
pub(super) struct Queue(NonNull<sys::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues are made to be used by several threads at once: each call locks.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    pub(super) fn new<C: ClientContext>(client: &Client<C>) -> Self {
        // SAFETY: the client lives through the call.
        let queue = unsafe { sys::rd_kafka_queue_new(client.native_ptr()) };
        Self(NonNull::new(queue).expect(NO_MEMORY))
    }

    /// Waits for a response, which may be an error. Blocks for `timeout` or somewhat longer.
    pub(super) fn wait(&self, timeout: Duration) -> Result<Event, KafkaError> {
        // librdkafka reports the timeout itself, with more detail about the failure.
        const GRACE: Duration = Duration::from_secs(1);
        let event = self.poll(millis(timeout.saturating_add(GRACE)));
        let event = event.ok_or(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut))?;
        event.check()?;
        Ok(event)
    }

    /// Returns the next response, if one is there.
    pub(super) fn next(&self) -> Option<Event> {
        self.poll(0)
    }

    fn poll(&self, millis: c_int) -> Option<Event> {
        // SAFETY: the queue lives. The event that it returns is ours to destroy.
        let event = unsafe { sys::rd_kafka_queue_poll(self.as_ptr(), millis) };
        NonNull::new(event).map(Event)
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_queue_t {
        self.0.as_ptr()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and destroyed only here. librdkafka drops a response that arrives after the queue is
        // gone.
        unsafe { sys::rd_kafka_queue_destroy(self.as_ptr()) }
    }
}

/// Calls a callback when an empty queue becomes non-empty.
pub(super) struct Notify {
    queue: *mut sys::rd_kafka_queue_t,
    /// In a box of its own: librdkafka uses its address until the drop.
    _callback: Box<Callback>,
}

type Callback = Box<dyn Fn() + Send + Sync>;

// SAFETY: the pointer is used once, in the drop, by a call that locks.
unsafe impl Send for Notify {}

impl Notify {
    /// Registers the callback on a queue.
    ///
    /// # Safety
    /// The queue lives longer than the returned value.
    pub(super) unsafe fn new(queue: &Queue, callback: impl Fn() + Send + Sync + 'static) -> Self {
        unsafe extern "C" fn call(_: *mut sys::rd_kafka_t, callback: *mut c_void) {
            // SAFETY: the box lives until the callback is disabled in librdkafka. Disabling waits for a call that is
            // in progress.
            let callback = unsafe { &*callback.cast_const().cast::<Callback>() };
            callback();
        }
        let callback: Box<Callback> = Box::new(Box::new(callback));
        let address = (&raw const *callback).cast_mut().cast();
        // SAFETY: the queue lives, and so does the callback, see above.
        unsafe { sys::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(call), address) }
        Self {
            queue: queue.as_ptr(),
            _callback: callback,
        }
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        // SAFETY: the queue lives, by the contract of `new`. librdkafka calls under the lock of the
        // queue, which this call takes too.
        unsafe { sys::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut()) }
    }
}

/// A response.
pub(super) struct Event(NonNull<sys::rd_kafka_event_t>);

impl Event {
    /// Returns the error of the request as a whole.
    pub(super) fn check(&self) -> Result<(), KafkaError> {
        // SAFETY: the event lives.
        match unsafe { code::of_event(self.as_ptr()) } {
            NO_ERROR => Ok(()),
            code => Err(KafkaError::AdminOp(code::named(code))),
        }
    }

    /// Returns the number that the options of the request carried.
    pub(super) fn id(&self) -> usize {
        // SAFETY: the event lives.
        unsafe { sys::rd_kafka_event_opaque(self.as_ptr()) }.addr()
    }

    /// Returns the kind of the response, one of librdkafka's constants.
    pub(super) fn kind(&self) -> sys::rd_kafka_event_type_t {
        // SAFETY: the event lives.
        unsafe { sys::rd_kafka_event_type(self.as_ptr()) }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_event_t {
        self.0.as_ptr()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: this value owns the event, and nothing borrowed from it outlives it.
        unsafe { sys::rd_kafka_event_destroy(self.as_ptr()) }
    }
}

/// Converts to milliseconds for librdkafka, which accepts 1 ms to 1 hour.
fn millis(time: Duration) -> c_int {
    time.as_millis().clamp(1, 3_600_000) as c_int
}
