//! Converts a record for librdkafka: its key, payload, headers and timestamp.

use std::ffi::{CString, c_int, c_void};
use std::ptr;

use bytes::Bytes;
use millstream_core::Record;
use rdkafka::bindings as rd;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaRespErr;

use super::header_name;
use super::timestamp;

/// librdkafka's `RD_KAFKA_PARTITION_UA`: the partitioner chooses.
pub(crate) const ANY_PARTITION: i32 = -1;

/// Returns why librdkafka would not send a record unchanged, whatever its size.
pub(crate) fn unsendable(record: &Record) -> Option<&'static str> {
    if record.headers.iter().any(|(name, _)| name.contains('\0')) {
        // librdkafka would send the whole name, but most of its readers take names as C strings.
        return Some("a header name has a NUL byte, which readers would cut it at");
    }
    let sent_as_it_is = timestamp::can_be_sent(record);
    (!sent_as_it_is)
        .then_some("the timestamp is before 1970-01-01T00:00:00Z, use a later one or none")
}

/// Lays a record out, without its headers and its timestamp. A null pointer means no key, or no payload (a
/// tombstone). An empty one is not null.
pub(super) fn laid_out(record: &Record, opaque: *mut c_void) -> rd::rd_kafka_message_t {
    let start = |bytes: Option<&Bytes>| {
        bytes.map_or(ptr::null_mut(), |bytes| bytes.as_ptr().cast_mut().cast())
    };
    let (key, payload) = (record.key.as_ref(), record.payload.as_ref());
    rd::rd_kafka_message_t {
        err: RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
        rkt: ptr::null_mut(),
        partition: ANY_PARTITION,
        payload: start(payload),
        len: payload.map_or(0, Bytes::len),
        key: start(key),
        key_len: key.map_or(0, Bytes::len),
        offset: 0,
        _private: opaque,
    }
}

/// Hands one record to librdkafka, with headers and timestamp. Does not wait.
///
/// # Safety
/// The topic is one of the client, and both are alive. The client's reports are read with this opaque. Keys
/// and headers are copied. The payload stays in place until the report, unless the flags say that it is
/// copied too.
pub(super) unsafe fn produce(
    client: *mut rd::rd_kafka_t,
    topic: *mut rd::rd_kafka_topic_t,
    record: &Record,
    opaque: *mut c_void,
    flags: c_int,
) -> Result<(), RDKafkaRespErr> {
    let laid_out = laid_out(record, opaque);
    // SAFETY: names and values are copied, with their lengths. A null pointer is a null value.
    let headers = unsafe {
        let headers = rd::rd_kafka_headers_new(record.headers.len());
        for (name, value) in record.headers.iter() {
            let name = header_name::to_bytes(name);
            rd::rd_kafka_header_add(
                headers,
                name.as_ptr().cast(),
                name.len() as isize,
                value.map_or(ptr::null(), |value| value.as_ptr().cast()),
                value.map_or(0, |value| value.len() as isize),
            );
        }
        headers
    };
    // SAFETY: by the contract above. Each tag is followed by the arguments that librdkafka's documentation
    // requires.
    let err = unsafe {
        use rd::rd_kafka_vtype_t as tag;
        rd::rd_kafka_producev(
            client,
            tag::RD_KAFKA_VTYPE_RKT as c_int,
            topic,
            tag::RD_KAFKA_VTYPE_MSGFLAGS as c_int,
            flags,
            tag::RD_KAFKA_VTYPE_VALUE as c_int,
            laid_out.payload,
            laid_out.len,
            tag::RD_KAFKA_VTYPE_KEY as c_int,
            laid_out.key,
            laid_out.key_len,
            tag::RD_KAFKA_VTYPE_TIMESTAMP as c_int,
            timestamp::of(record).unwrap_or(0),
            tag::RD_KAFKA_VTYPE_HEADERS as c_int,
            headers,
            tag::RD_KAFKA_VTYPE_OPAQUE as c_int,
            laid_out._private,
            tag::RD_KAFKA_VTYPE_END as c_int,
        )
    };
    if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    // SAFETY: librdkafka takes ownership of the headers only if it accepts the record.
    unsafe { rd::rd_kafka_headers_destroy(headers) };
    Err(err)
}

/// Hands copies of records to one of rdkafka's producers, in their order. Does not wait. If a record is refused,
/// the records before it stay handed over.
pub(crate) fn produce_copies<C: ProducerContext<DeliveryOpaque = ()>>(
    producer: &ThreadedProducer<C>,
    topic: &str,
    records: &[Record],
) -> KafkaResult<()> {
    let name = CString::new(topic)?;
    let client = producer.client().native_ptr();
    // SAFETY: the client is alive, the name is a C string, and there are no settings whose ownership would pass.
    let topic = unsafe { rd::rd_kafka_topic_new(client, name.as_ptr(), ptr::null_mut()) };
    if topic.is_null() {
        return Err(KafkaError::Global(RDKafkaErrorCode::InvalidTopic));
    }
    let refused = records.iter().find_map(|record| {
        let opaque = ptr::null_mut();
        // SAFETY: client and topic are alive, the payload is copied, and the context's reports read
        // no opaque.
        let produced = unsafe { produce(client, topic, record, opaque, rd::RD_KAFKA_MSG_F_COPY) };
        produced.err()
    });
    // SAFETY: it was made above. Its records hold a reference to it for as long as they need it.
    unsafe { rd::rd_kafka_topic_destroy(topic) };
    match refused {
        Some(err) => Err(KafkaError::MessageProduction(err.into())),
        None => Ok(()),
    }
}
