//! What a program requires of its backend, and of single streams.

use std::future::pending;

use millstream_core::{DeadLetter, ErrorKind, Guarantee, Retry};

use crate::desk::group;
use crate::fake::Script;

#[tokio::test(start_paused = true)]
async fn what_the_backend_does_not_promise_is_refused_before_the_driver_is_asked() {
    let script = Script::new();
    let required = group(&script).require(Guarantee::Durable);
    let error = required.join().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.group()),
        (ErrorKind::Unsupported, Some("g")),
        "{error}"
    );
    assert!(error.message().contains("Durable"), "{error}");
    assert!(script.joins().is_empty(), "a member has joined");
    let producer = script.client.producer("results");
    let error = producer.require(Guarantee::Durable).open().await;
    let error = error.unwrap_err();
    assert_eq!(
        (error.kind(), error.stream()),
        (ErrorKind::Unsupported, Some("results")),
        "{error}"
    );
    assert!(error.message().contains("Durable"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_key_order_is_refused_where_it_is_required() {
    let script = Script::new();
    script.unorder("s");
    let kind = ErrorKind::Unsupported;
    let required = group(&script).require(Guarantee::KeyOrder);
    let error = required.join().await.unwrap_err();
    assert_eq!((error.kind(), error.stream()), (kind, Some("s")), "{error}");
    let nothing = |_| async { Ok::<(), String>(()) };
    let error = required.run(nothing, pending()).await.unwrap_err();
    assert_eq!((error.kind(), error.stream()), (kind, Some("s")), "{error}");
    let producer = script.client.producer("s").require(Guarantee::KeyOrder);
    let error = producer.open().await.unwrap_err();
    assert_eq!((error.kind(), error.stream()), (kind, Some("s")), "{error}");
    // Nothing else is.
    script.client.producer("s").open().await.unwrap();
    group(&script).join().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ordered_streams_are_accepted_beside_unordered_dead_letters() {
    let script = Script::new();
    script.unorder("dead");
    let letters = Retry::exponential().then(DeadLetter::stream("dead"));
    let required = group(&script).on_failure(letters);
    let required = required.require(Guarantee::KeyOrder);
    required.join().await.unwrap();
    assert_eq!(script.joins()[0].required, [Guarantee::KeyOrder]);
    let producer = script.client.producer("results");
    producer.require(Guarantee::KeyOrder).open().await.unwrap();
}
