//! Errors of calls that time out contain the cause.

use std::time::Duration;

use millstream_core::{Client, Error, ErrorKind, Record, StreamSpec};
use millstream_kafka::{Config, Tls};

use crate::{CLOSED_PORT, UNKNOWN_HOST, broker, shared_broker};

/// The timeouts are short, because the calls of these tests time out.
fn config(bootstrap: String) -> Config {
    let mut config = Config::default();
    config.brokers = vec![bootstrap];
    config.request_timeout = Duration::from_secs(4);
    config.producer.timeout = Duration::from_secs(4);
    config
}

async fn create(name: &str) {
    let client = config(shared_broker().await).connect().await.unwrap();
    client
        .streams()
        .create(StreamSpec::new(name))
        .await
        .unwrap();
}

async fn send(client: &Client, stream: &str) -> Error {
    let producer = client.producer(stream).open().await.unwrap();
    let receipt = producer.send(Record::new("x")).await.unwrap();
    let error = receipt.await.unwrap_err();
    drop(producer);
    error
}

/// The brokers can be reached by the configured address, but not by the address that they advertise.
async fn advertised(listener: &str, stream: &str, reason: &str) {
    create(stream).await;
    let port = broker().await.port(listener);
    let client = config(format!("127.0.0.1:{port}")).connect();
    let client = client.await.unwrap();
    let sent = send(&client, stream).await;
    let group = client.group(stream).stream(stream);
    let joined = group.join().await.unwrap_err();
    let read = group.checkpoints().await.unwrap_err();
    for error in [sent, joined, read] {
        assert!(
            matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable),
            "{error:?}"
        );
        assert!(error.message().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn an_advertised_host_that_nobody_knows() {
    advertised(UNKNOWN_HOST, "unknown-host", "no-such-host.invalid").await;
}

#[tokio::test]
async fn an_advertised_address_at_which_nobody_listens() {
    advertised(CLOSED_PORT, "closed-port", "refused").await;
}

#[tokio::test]
async fn tls_is_spoken_to_a_plain_port() {
    let mut config = config(shared_broker().await);
    config.security.tls = Some(Tls::default());
    let error = config.connect().await.unwrap_err();
    // The broker responds with something else, or hangs up.
    let reasons = ["PLAINTEXT", "if the broker expects no TLS"];
    assert!(
        reasons
            .iter()
            .any(|reason| error.message().contains(reason)),
        "{error}"
    );
}
