//! Tests of the producer against librdkafka's own mock cluster.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::join_all;
use millstream_core::driver::{Producer as _, Rejected};
use millstream_core::{ErrorKind, Record, RecordMetadata};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::time::timeout;

use super::Producer;
use super::record_sender::{LargestBatch, PanicPoint};
use super::size_limits::SizeLimits;
use crate::config;
use crate::connection::context::Context;

type Mock = MockCluster<'static, DefaultProducerContext>;
type Answers = Vec<Result<RecordMetadata, Rejected>>;

fn mock() -> Mock {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 4, 1).unwrap();
    mock
}

fn open(mock: &Mock, timeout: Duration) -> Producer {
    open_knowing(mock, timeout, 4)
}

fn open_knowing(mock: &Mock, timeout: Duration, partitions: usize) -> Producer {
    open_with(mock, timeout, partitions, Box::new(|| None))
}

fn open_with(
    mock: &Mock,
    timeout: Duration,
    partitions: usize,
    largest_batch: LargestBatch,
) -> Producer {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", mock.bootstrap_servers());
    settings.set("topic.metadata.refresh.interval.ms", "500");
    let config = config::Producer {
        timeout,
        ..config::Producer::default()
    };
    let context = Context::new("send", None);
    Producer::new(
        "t".into(),
        settings,
        context,
        &config,
        SizeLimits::new(None),
        partitions,
        largest_batch,
    )
    .unwrap()
}

/// Returns 100 records with 10 keys.
fn call(number: usize) -> Vec<Record> {
    let record = |key| Record::new(format!("{number}")).key(format!("{}", key % 10));
    (0..100).map(record).collect()
}

fn kinds(answers: &Answers) -> HashMap<Option<ErrorKind>, usize> {
    let mut kinds = HashMap::new();
    for answer in answers {
        let kind = answer.as_ref().err().map(|rejected| rejected.error.kind());
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// Waits until a call is stored. Finding the broker may take longer than a short timeout.
async fn goes_on(producer: &Producer) {
    let begun = Instant::now();
    while kinds(&producer.send(call(0)).await) != [(None, 100)].into() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "it does not go on"
        );
    }
}

/// Asserts that within a call no record is stored after one of its key that failed.
fn assert_keys_end_where_they_fail(answers: &Answers) {
    let mut failed = [false; 10];
    for (index, answer) in answers.iter().enumerate() {
        let failed = &mut failed[index % 10];
        match answer {
            Ok(_) => assert!(!*failed, "record {index} was stored after a failed one"),
            Err(_) => *failed = true,
        }
    }
}

#[tokio::test]
async fn a_client_that_can_go_on_no_more_is_replaced() {
    let mock = mock();
    let producer = open(&mock, Duration::from_secs(60));
    assert_eq!(kinds(&producer.send(call(0)).await), [(None, 100)].into());

    // librdkafka cannot recover from this error for the first request in flight.
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    mock.broker_round_trip_time(-1, Duration::from_millis(20))
        .unwrap();
    mock.request_errors(RDKafkaApiKey::Produce, &[error]);
    let calls = join_all((0..20).map(|number| producer.send(call(number)))).await;

    let mut stored = 0;
    for answers in &calls {
        assert_keys_end_where_they_fail(answers);
        for (kind, count) in kinds(answers) {
            match kind {
                None => stored += count,
                Some(ErrorKind::Timeout | ErrorKind::Unavailable) => {}
                kind => panic!("{count} answered {kind:?}"),
            }
        }
    }
    assert!(
        (1..2_000).contains(&stored),
        "{stored} of 2,000 were stored"
    );
    assert_eq!(kinds(&producer.send(call(0)).await), [(None, 100)].into());
    producer.close().await.unwrap();
}

#[tokio::test]
async fn a_denial_is_returned_and_looked_at_anew() {
    for (api, error) in [
        (
            RDKafkaApiKey::InitProducerId,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
        ),
        (
            RDKafkaApiKey::Produce,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        ),
    ] {
        let mock = mock();
        mock.request_errors(api, &[error]);
        let producer = open(&mock, Duration::from_secs(60));
        let begun = Instant::now();
        let answers = producer.send(call(0)).await;
        assert_eq!(answers.len(), 100);
        let rejected = answers.into_iter().find_map(Result::err).unwrap();
        assert_eq!(
            rejected.error.kind(),
            ErrorKind::Denied,
            "{:?}",
            rejected.error
        );
        assert_eq!(rejected.error.stream(), Some("t"));
        assert_eq!(rejected.error.operation(), "send");
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(kinds(&producer.send(call(1)).await), [(None, 100)].into());
    }
}

#[tokio::test]
async fn what_nobody_stores_times_out() {
    let mock = mock();
    let producer = open(&mock, Duration::from_secs(1));
    mock.broker_down(-1).unwrap();
    let answers = producer.send(call(0)).await;
    assert_eq!(kinds(&answers), [(Some(ErrorKind::Timeout), 100)].into());
    for (rejected, record) in answers.into_iter().map(Result::unwrap_err).zip(call(0)) {
        assert_eq!(*rejected.record, record);
    }
    mock.broker_up(-1).unwrap();
    goes_on(&producer).await;
}

#[tokio::test]
async fn what_waits_for_an_answer_times_out_at_its_own_time() {
    const CALLS: u32 = 20;
    const TIMEOUT: Duration = Duration::from_secs(1);
    let mock = mock();
    let producer = open(&mock, TIMEOUT);
    goes_on(&producer).await;
    mock.broker_down(-1).unwrap();
    let begun = Instant::now();
    let calls = join_all((1..=CALLS as usize).map(|number| producer.send(call(number)))).await;
    let took = begun.elapsed();
    for answers in &calls {
        assert_keys_end_where_they_fail(answers);
        assert_eq!(kinds(answers), [(Some(ErrorKind::Timeout), 100)].into());
    }
    // Less than the calls would take one after another, although a client may be replaced in the meantime.
    assert!(took < TIMEOUT * CALLS, "{took:?}");
    mock.broker_up(-1).unwrap();
    producer.close().await.unwrap();
}

#[tokio::test]
async fn unknown_partitions_are_written_to() {
    let mock = mock();
    let producer = open_knowing(&mock, Duration::from_secs(60), 1);
    for number in 0..5 {
        let calls = join_all((0..5).map(|_| producer.send(call(number)))).await;
        for answers in calls {
            assert_eq!(kinds(&answers), [(None, 100)].into());
        }
    }
}

/// Batches of small records that the topic no longer accepts are sent again in smaller batches.
#[tokio::test]
async fn small_records_that_are_too_large_together_are_sent_again() {
    let mock = mock();
    let producer = open(&mock, Duration::from_secs(60));
    goes_on(&producer).await;
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    mock.request_errors(RDKafkaApiKey::Produce, &[error, error, error]);
    let calls = join_all((0..20).map(|number| producer.send(call(number)))).await;
    for answers in &calls {
        assert_eq!(kinds(answers), [(None, 100)].into());
    }
}

/// One broker reports that there is no such topic, for less time than it takes to be believed.
#[tokio::test]
async fn records_wait_for_a_topic_that_is_unknown_for_a_while() {
    let mock = mock();
    let producer = open(&mock, Duration::from_secs(60));
    goes_on(&producer).await;
    mock.topic_error("t", RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
        .unwrap();
    let begun = Instant::now();
    let mut waiting = loop {
        let mut sent = Box::pin(producer.send(call(0)));
        // It takes a moment until the client asks again, and believes the response.
        match timeout(Duration::from_secs(1), &mut sent).await {
            Ok(answers) => assert_eq!(kinds(&answers), [(None, 100)].into()),
            Err(_) => break sent,
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "it is known");
    };
    let early = timeout(Duration::from_secs(8), &mut waiting).await;
    assert!(early.is_err(), "{:?}", early.map(|answers| kinds(&answers)));
    mock.topic_error("t", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR)
        .unwrap();
    assert_eq!(kinds(&waiting.await), [(None, 100)].into());
}

#[tokio::test]
async fn a_producer_closes_with_calls_dropped_under_way() {
    let mock = mock();
    let producer = open(&mock, Duration::from_secs(60));
    mock.broker_down(-1).unwrap();
    assert!(producer.send(call(0)).now_or_never().is_none());
    let begun = Instant::now();
    producer.close().await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn no_records_are_answered_at_once() {
    let mock = mock();
    let producer = open(&mock, Duration::from_secs(60));
    let answers = producer.send(Vec::new()).now_or_never();
    assert!(answers.unwrap().is_empty());
}

/// This is less than the timeout of the producers below.
const PANIC_TIMEOUT: Duration = Duration::from_secs(20);

/// Checks that a panic of the delivery thread is the result of these calls and of later ones, and does not keep the
/// producer from closing.
async fn assert_panicked(producer: Producer, pending: Vec<Answers>) {
    let later = producer.send(call(0)).now_or_never();
    let later = later.expect("a call after a panic has results at once");
    for rejected in pending
        .into_iter()
        .chain([later])
        .flatten()
        .filter_map(Result::err)
    {
        let error = rejected.error;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.message().ends_with("panicked: simulated"), "{error}");
        assert_eq!(error.stream(), Some("t"));
    }
    let closed = timeout(PANIC_TIMEOUT, producer.close()).await;
    let error = closed.expect("the producer closes").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_panic_fails_records_that_the_client_has() {
    let mock = mock();
    let producer = open(&mock, Duration::from_secs(120));
    goes_on(&producer).await;
    mock.broker_down(-1).unwrap();
    let mut pending = Box::pin(join_all((1..=20).map(|number| producer.send(call(number)))));
    assert!(pending.as_mut().now_or_never().is_none());
    *producer.sender.panic_point.lock().unwrap() = Some(PanicPoint::BeforePoll);
    let answers = timeout(PANIC_TIMEOUT, &mut pending).await;
    drop(pending);
    let answers = answers.expect("the calls have results");
    assert!(answers.iter().flatten().all(Result::is_err));
    assert_panicked(producer, answers).await;
}

#[tokio::test]
async fn a_panic_fails_records_whose_reports_are_served() {
    let mock = mock();
    let producer = open(&mock, Duration::from_secs(120));
    goes_on(&producer).await;
    *producer.sender.panic_point.lock().unwrap() = Some(PanicPoint::InReport);
    let calls = join_all((1..=20).map(|number| producer.send(call(number))));
    let answers = timeout(PANIC_TIMEOUT, calls).await;
    assert_panicked(producer, answers.expect("the calls have results")).await;
}

#[tokio::test]
async fn a_panic_fails_records_that_are_to_be_sent_again() {
    let mock = mock();
    let largest_batch = Box::new(|| panic!("simulated"));
    let producer = open_with(&mock, Duration::from_secs(120), 4, largest_batch);
    goes_on(&producer).await;
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    mock.request_errors(RDKafkaApiKey::Produce, &[error, error, error]);
    let calls = join_all((1..=20).map(|number| producer.send(call(number))));
    let answers = timeout(PANIC_TIMEOUT, calls).await;
    assert_panicked(producer, answers.expect("the calls have results")).await;
}
