//! C13, before any request to a broker: options out of their bounds are rejected when they are used.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{ConsumerGroup, ErrorKind, Guarantee, ProducerBuilder, Retry};

use super::{ALL_GUARANTEES, cases};
use crate::Harness;
use crate::fleet::Fleet;
use crate::harness::eventually;

cases! {
    c13_options_of_groups_out_of_bounds,
    c13_options_of_producers_out_of_bounds,
    c13_names_of_groups,
    c13_missing_guarantees_are_unsupported [SOME_GUARANTEE_MISSING],
    c13_promised_guarantees_are_met [SOME_GUARANTEE],
}

type Configure<T> = fn(T) -> T;

async fn c13_options_of_groups_out_of_bounds(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let group = fleet.handle().await;
    let wrong: [(&str, Configure<ConsumerGroup>); 14] = [
        ("concurrency", |group| group.concurrency(0)),
        ("concurrency", |group| group.concurrency(usize::MAX)),
        ("max_unsettled_per_partition", |group| {
            group.max_unsettled_per_partition(0)
        }),
        ("max_unsettled_per_partition", |group| {
            group.max_unsettled_per_partition(usize::MAX)
        }),
        ("max_poll_records", |group| group.max_poll_records(0)),
        ("buffer_bytes", |group| group.buffer_bytes(0)),
        ("checkpoint_interval", |group| {
            group.checkpoint_interval(Duration::ZERO)
        }),
        ("checkpoint_interval", |group| {
            group.checkpoint_interval(Duration::MAX)
        }),
        ("checkpoint_records", |group| group.checkpoint_records(0)),
        ("drain_timeout", |group| group.drain_timeout(Duration::MAX)),
        ("attempts", |group| {
            group.on_failure(Retry::none().attempts(0))
        }),
        ("delay", |group| {
            group.on_failure(Retry::exponential().delays(Duration::ZERO, Duration::ZERO))
        }),
        ("delay", |group| {
            let (long, short) = (Duration::from_secs(2), Duration::from_secs(1));
            group.on_failure(Retry::exponential().delays(long, short))
        }),
        ("twice", |group| {
            let again = group.clone();
            again.stream("a").stream("a")
        }),
    ];
    for (names, configure) in wrong {
        let group = configure(group.clone());
        let error = group.join().await.expect_err("it is out of its bounds");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(
            error.to_string().contains(names),
            "{error} does not name {names}"
        );
        let handler = |_| async { Ok::<_, std::io::Error>(()) };
        let run = group.run(handler, std::future::pending()).await;
        assert_eq!(
            run.expect_err("it is out of its bounds").kind(),
            ErrorKind::Invalid,
            "run refuses {names}"
        );
    }
    let none = fleet.client.group(fleet.group.as_str());
    let error = none.join().await.expect_err("no stream is named");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    let handler = |_| async { Ok(()) };
    let error = group.run_batches(0, handler, std::future::pending()).await;
    assert_eq!(
        error.expect_err("a batch of none").kind(),
        ErrorKind::Invalid,
        "a batch of none"
    );
}

async fn c13_options_of_producers_out_of_bounds(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let wrong: [(&str, Configure<ProducerBuilder>); 3] = [
        ("in_flight_records", |producer| {
            producer.in_flight_records(0)
        }),
        ("in_flight_records", |producer| {
            producer.in_flight_records(usize::MAX)
        }),
        ("in_flight_bytes", |producer| producer.in_flight_bytes(0)),
    ];
    for (names, configure) in wrong {
        let producer = configure(fleet.client.producer(fleet.stream.as_str()));
        let error = producer.open().await.expect_err("it is out of its bounds");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(
            error.to_string().contains(names),
            "{error} does not name {names}"
        );
    }
    // An absurd duration is either rejected or applied literally; it causes no panic, and no harm.
    let absurd: [Configure<ProducerBuilder>; 2] = [
        |producer| producer.timeout(Duration::MAX),
        |producer| producer.close_timeout(Duration::MAX),
    ];
    for configure in absurd {
        match configure(fleet.client.producer(fleet.stream.as_str()))
            .open()
            .await
        {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "{error}"),
            Ok(producer) => {
                let sent = producer.send(millstream_core::Record::new("x")).await;
                sent.expect("it is taken").await.expect("it is stored");
                producer.close().await.expect("it closes");
            }
        }
    }
}

async fn c13_names_of_groups(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let long = "g".repeat(256);
    for name in ["", "a b", "a/b", "grüppe", long.as_str()] {
        let group = fleet.client.group(name).stream(fleet.stream.as_str());
        let refused = match group.join().await {
            Err(error) => error,
            // A backend whose groups may have clients of other libraries accepts the names that those may use.
            Ok(consumer) if !name.is_empty() => {
                // Whether its progress is stored, and can be read.
                let checkpoints = async || group.checkpoints().await.ok();
                let what = "the group has checkpoints";
                eventually(fleet.harness.timing(), what, checkpoints).await;
                consumer.close().await.expect("it closes");
                let reset = group.reset(&fleet.stream, millstream_core::Start::Earliest);
                reset.await.expect("it has joined");
                continue;
            }
            Ok(_) => panic!("no group has an empty name"),
        };
        let errors = [
            refused,
            group.checkpoints().await.expect_err("it is no name"),
            group
                .reset(&fleet.stream, millstream_core::Start::Earliest)
                .await
                .expect_err("it is no name"),
            group
                .run(
                    |_| async { Ok::<_, std::io::Error>(()) },
                    std::future::pending(),
                )
                .await
                .expect_err("it is no name"),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        }
    }
    // A backend may have the group of an earlier run, on another stream.
    let longest = format!("{:g<255}", fleet.harness.unique("group"));
    let longest = fleet.client.group(longest).stream(fleet.stream.as_str());
    longest
        .join()
        .await
        .expect("it is a name")
        .close()
        .await
        .expect("it closes");
}

/// Returns the guarantees that the backend makes, or those that it does not make.
async fn guarantees(harness: &dyn Harness, made: bool) -> Vec<Guarantee> {
    let guarantees = harness.client().await.guarantees();
    ALL_GUARANTEES
        .into_iter()
        .filter(|guarantee| guarantees.has(*guarantee) == made)
        .collect()
}

async fn c13_missing_guarantees_are_unsupported(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    for guarantee in guarantees(&*harness, false).await {
        let fleet = Fleet::new(harness.clone(), 1).await;
        let group = fleet.handle().await.require(guarantee);
        let error = group.join().await.expect_err("it is not promised");
        assert_eq!(
            (error.kind(), error.group()),
            (ErrorKind::Unsupported, Some(fleet.group.as_str())),
            "{guarantee:?}: {error:?}"
        );
        let named = format!("{guarantee:?}");
        assert!(
            error.message().contains(&named),
            "{error} does not name {named}"
        );
        let producer = fleet.client.producer(fleet.stream.as_str());
        let error = producer.require(guarantee).open().await;
        let error = error.expect_err("it is not promised");
        assert_eq!(
            (error.kind(), error.stream()),
            (ErrorKind::Unsupported, Some(fleet.stream.as_str())),
            "{guarantee:?}: {error:?}"
        );
        assert!(
            error.message().contains(&named),
            "{error} does not name {named}"
        );
        let member = fleet
            .member("a")
            .with(|group| group.require(guarantee))
            .start()
            .await;
        let error = member.ended(timing).await.expect_err("it is not promised");
        assert_eq!(
            error.kind(),
            ErrorKind::Unsupported,
            "{guarantee:?}: {error:?}"
        );
    }
}

async fn c13_promised_guarantees_are_met(harness: Arc<dyn Harness>) {
    for guarantee in guarantees(&*harness, true).await {
        let fleet = Fleet::new(harness.clone(), 1).await;
        fleet.send(2, 2).await;
        let producer = fleet.client.producer(fleet.stream.as_str());
        let producer = producer.require(guarantee).open().await;
        let closed = producer.expect("it is promised").close().await;
        closed.expect("nothing was sent");
        let member = fleet.member("a").with(|group| group.require(guarantee));
        let member = member.start().await;
        fleet.check().await;
        member.close().await;
    }
}
