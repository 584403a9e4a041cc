use std::time::{Duration, UNIX_EPOCH};

use millstream_core::driver::{Backend, JoinOptions};
use millstream_core::{ErrorKind, Headers, Record};

use crate::fixture::{Fixture, record};

#[tokio::test(start_paused = true)]
async fn records_are_read_as_they_were_sent() {
    let fixture = Fixture::with_stream(1).await;
    let own_time = UNIX_EPOCH + Duration::from_millis(1_234);
    let sent = Record::new(vec![0u8, 255, 7])
        .key(vec![9u8, 8])
        .header("a", "1")
        .header("a", vec![0u8])
        .timestamp(own_time);
    let producer = fixture.producer("s").await;
    let mut tombstone = Record::tombstone("k");
    tombstone.headers.push_null("null");
    let records = vec![sent.clone(), Record::new(""), tombstone.clone()];
    let metadata = producer.send(records).await;
    let metadata: Vec<_> = metadata.into_iter().map(Result::unwrap).collect();

    let mut member = fixture.join("a").await;
    member.settle().await;
    let stored = &member.records[&metadata[0].partition];
    assert_eq!(stored[0].key, sent.key);
    assert_eq!(stored[0].payload, sent.payload);
    assert_eq!(stored[0].headers, sent.headers);
    assert_eq!(stored[0].timestamp, own_time);
    assert_eq!(stored[1].headers, Headers::new());
    assert_eq!(
        stored[1].timestamp,
        UNIX_EPOCH + Duration::from_secs(1_000_000)
    );
    assert_eq!(stored[0].position, metadata[0].position);
    assert!(
        stored[1]
            .payload
            .as_ref()
            .is_some_and(|payload| payload.is_empty())
    );
    assert_eq!(stored[2].payload, None);
    assert_eq!(stored[2].headers, tombstone.headers);
}

#[tokio::test(start_paused = true)]
async fn a_key_stays_in_its_partition_and_in_order() {
    let fixture = Fixture::with_stream(4).await;
    for round in 0..10 {
        let records: Vec<String> = (0..20).map(|key| format!("k{key}={key}:{round}")).collect();
        fixture
            .send(&records.iter().map(String::as_str).collect::<Vec<_>>())
            .await;
    }
    let mut member = fixture.join("a").await;
    member.settle().await;
    for key in 0..20 {
        let partitions = member.records.values().filter(|records| {
            records
                .iter()
                .any(|r| r.key.as_deref() == Some(format!("k{key}").as_bytes()))
        });
        assert_eq!(partitions.count(), 1);
        let prefix = format!("{key}:");
        let seen: Vec<_> = member
            .payloads
            .iter()
            .filter(|p| p.starts_with(&prefix))
            .collect();
        let expected: Vec<_> = (0..10).map(|round| format!("{key}:{round}")).collect();
        assert_eq!(seen, expected.iter().collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn records_without_a_key_go_round_robin() {
    let fixture = Fixture::with_stream(3).await;
    fixture.fill(3, 5).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    assert!(member.records.values().all(|records| records.len() == 5));
    assert_eq!(member.records.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn limits_refuse_one_record_and_the_rest_of_its_key() {
    let fixture = Fixture::with(|config| {
        config.limits.record_bytes = Some(10);
        config.limits.key_bytes = Some(4);
    });
    fixture.create("s", 1).await;
    let producer = fixture.producer("s").await;
    assert_eq!(producer.limits().record_bytes, 10);
    let records = ["a=1", "a=much too large", "a=2", "b=1", "large=1"]
        .map(record)
        .to_vec();
    let kinds: Vec<_> = producer
        .send(records)
        .await
        .into_iter()
        .map(|result| result.map(drop).map_err(|rejected| rejected.error.kind()))
        .collect();
    let expected = [
        Ok(()),
        Err(ErrorKind::TooLarge),
        Err(ErrorKind::Unavailable),
        Ok(()),
        Err(ErrorKind::Invalid),
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_is_bounded_by_bytes() {
    let fixture = Fixture::with_stream(2).await;
    let record = || Record::new(vec![0; 100]);
    let records = (0..20).map(|_| record()).collect();
    for result in fixture.producer("s").await.send(records).await {
        result.unwrap();
    }
    let set = |join: &mut JoinOptions| join.batch_bytes = 450;
    let mut member = fixture.join_with("g", "a", set).await;
    while member.payloads.len() < 20 {
        let before = member.payloads.len();
        assert!(member.step().await.unwrap(), "all records come");
        assert!(
            member.payloads.len() - before <= 5,
            "a record too many at most"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn rates_throttle_a_partition_and_recover() {
    let fixture = Fixture::with(|config| config.limits.records_per_second = Some(5));
    fixture.create("s", 1).await;
    let producer = fixture.producer("s").await;
    let send = || async {
        let results = producer
            .send((0..8).map(|n| Record::new(n.to_string())).collect())
            .await;
        results.iter().filter(|result| result.is_ok()).count()
    };
    assert_eq!(send().await, 5);
    let refused = producer
        .send(vec![record("x")])
        .await
        .remove(0)
        .unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::Throttled);
    assert_eq!(*refused.record, record("x"));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(send().await, 5);
}

#[tokio::test(start_paused = true)]
async fn unknown_and_deleted_streams_are_not_found() {
    let fixture = Fixture::with_stream(1).await;
    let error = fixture.memory.open_producer("none", &[]).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.stream()),
        (ErrorKind::NotFound, Some("none"))
    );
    let error = fixture
        .try_join("g", "a", |join| join.streams = vec!["none".into()])
        .await;
    let error = error.map(|_| ()).unwrap_err();
    assert_eq!(
        (error.kind(), error.stream(), error.group()),
        (ErrorKind::NotFound, Some("none"), Some("g"))
    );

    let producer = fixture.producer("s").await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    fixture.streams().delete("s").await.unwrap();
    let refused = producer
        .send(vec![record("x")])
        .await
        .remove(0)
        .unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::NotFound);
    let error = member.step().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.stream()),
        (ErrorKind::NotFound, Some("s"))
    );

    // A new stream with the old name is another stream.
    fixture.create("s", 1).await;
    assert!(producer.send(vec![record("x")]).await[0].is_err());
    assert!(member.step().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_deletion_ends_a_waiting_member() {
    let fixture = Fixture::with_stream(1).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let waiting = tokio::spawn({
        let membership = member.membership.clone();
        async move { membership.next().await }
    });
    tokio::task::yield_now().await;
    fixture.streams().delete("s").await.unwrap();
    assert_eq!(
        waiting.await.unwrap().unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test(start_paused = true)]
async fn unknown_streams_are_created_if_configured() {
    let fixture = Fixture::with(|config| config.auto_create_partitions = Some(3));
    fixture.producer("made").await;
    assert_eq!(
        fixture
            .streams()
            .describe("made")
            .await
            .unwrap()
            .partitions
            .len(),
        3
    );
    fixture.join("a").await;
    assert_eq!(fixture.streams().list().await.unwrap(), ["made", "s"]);
}

#[tokio::test(start_paused = true)]
async fn one_full_partition_does_not_starve_the_others() {
    let fixture = Fixture::with_stream(2).await;
    fixture.fill(2, 300).await;
    let mut member = fixture
        .join_with("g", "a", |join| join.batch_records = 10)
        .await;
    while member.payloads.len() < 100 {
        assert!(member.step().await.unwrap());
    }
    let counts: Vec<_> = member.records.values().map(Vec::len).collect();
    assert_eq!(counts, [50, 50]);
}
