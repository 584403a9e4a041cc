//! Error codes of librdkafka as plain numbers.
//!
//! librdkafka passes on the codes of brokers unchanged. Its C enum may hold any number, and the Rust enum of
//! the bindings may not: a code of a newer broker, read as that enum, is undefined behaviour. So a code that
//! may come from a broker is only read here, as a number.

use rdkafka::bindings as rd;
use rdkafka::error::RDKafkaErrorCode;

/// The code that means no error.
pub(super) const NO_ERROR: i32 = 0;

// As in the bindings, with the integers that represent their enum.
unsafe extern "C" {
    fn rd_kafka_event_error(event: *mut rd::rd_kafka_event_t) -> i32;
    fn rd_kafka_error_code(error: *const rd::rd_kafka_error_t) -> i32;
}

/// Reads the code from a field of a librdkafka struct.
///
/// # Safety
/// The field is alive.
pub(super) unsafe fn of_field(err: *const rd::rd_kafka_resp_err_t) -> i32 {
    // SAFETY: by the contract above. The enum is represented by this number.
    unsafe { err.cast::<i32>().read() }
}

/// Returns the code of an event.
///
/// # Safety
/// The event is alive.
pub(super) unsafe fn of_event(event: *mut rd::rd_kafka_event_t) -> i32 {
    // SAFETY: by the contract above.
    unsafe { rd_kafka_event_error(event) }
}

/// Returns the code of an error, or [`NO_ERROR`] if it is null.
///
/// # Safety
/// The error is alive, or null.
pub(super) unsafe fn of_error(error: *const rd::rd_kafka_error_t) -> i32 {
    // SAFETY: by the contract above.
    unsafe { rd_kafka_error_code(error) }
}

/// Returns the name of a code. A code that the bindings do not have becomes `Unknown`, which is handled as a
/// broker failure, which it most likely is.
pub(super) fn named(code: i32) -> RDKafkaErrorCode {
    let known = rd::rd_kafka_resp_err_t::try_from(code);
    known.map_or(RDKafkaErrorCode::Unknown, Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_a_newer_broker_has_no_name() {
        const INCONSISTENT_TOPIC_ID: i32 = 103;
        assert_eq!(named(INCONSISTENT_TOPIC_ID), RDKafkaErrorCode::Unknown);
        assert_eq!(named(3), RDKafkaErrorCode::UnknownTopicOrPartition);
        let mut field = INCONSISTENT_TOPIC_ID;
        // SAFETY: the number is alive, and is read as one.
        let read = unsafe { of_field((&raw mut field).cast()) };
        assert_eq!(read, INCONSISTENT_TOPIC_ID);
    }

    #[test]
    fn no_error_has_the_code_of_none() {
        // SAFETY: null is allowed.
        assert_eq!(unsafe { of_error(std::ptr::null()) }, NO_ERROR);
    }
}
