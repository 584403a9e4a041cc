//! Waiting until the records of one of rdkafka's producers are stored.

use std::ffi::c_int;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaRespErr;

/// Waits until no record of a producer is left and its context has all reports. Blocks.
///
/// `flush` of rdkafka (0.39) polls in steps of 100 ms that do not end with the last report, although the
/// producer's own thread polls too. So it would take 100 ms at least, and a multiple of it.
///
/// # Errors
/// `OperationTimedOut` if records are left.
pub(crate) fn flush<C: ProducerContext>(
    producer: &ThreadedProducer<C>,
    timeout: Duration,
) -> KafkaResult<()> {
    let timeout = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: the client is alive. A record is left until the event with its report is destroyed, which
    // the producer's thread does after it has passed the report to the context.
    match unsafe { rd::rd_kafka_flush(producer.client().native_ptr(), timeout) } {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        failed => Err(KafkaError::Flush(failed.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::ClientConfig;
    use rdkafka::error::RDKafkaErrorCode;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::BaseRecord;

    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    fn send(producer: &ThreadedProducer<impl ProducerContext<DeliveryOpaque = ()> + 'static>) {
        let sent = producer.send(BaseRecord::<(), _>::to("t").payload("x"));
        sent.map_err(|(error, _)| error).unwrap();
    }

    #[test]
    fn it_ends_with_the_last_report() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("t", 1, 1).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", mock.bootstrap_servers());
        config.set("linger.ms", "0");
        let producer: ThreadedProducer<_> = config.create().unwrap();
        // The machine may be busy in most of them, not in all.
        let shortest = (0..20).map(|_| {
            send(&producer);
            let begun = Instant::now();
            flush(&producer, Duration::from_secs(20)).unwrap();
            assert_eq!(producer.in_flight_count(), 0);
            begun.elapsed()
        });
        let shortest = shortest.min().unwrap();
        assert!(shortest < STEP / 2, "{shortest:?}");
    }

    #[test]
    fn records_that_are_left_are_a_timeout() {
        let mut config = ClientConfig::new();
        // Nobody listens there.
        config.set("bootstrap.servers", "127.0.0.1:1");
        let producer: ThreadedProducer<_> = config.create().unwrap();
        send(&producer);
        let failed = flush(&producer, STEP).unwrap_err();
        let code = failed.rdkafka_error_code();
        assert_eq!(code, Some(RDKafkaErrorCode::OperationTimedOut));
    }
}
