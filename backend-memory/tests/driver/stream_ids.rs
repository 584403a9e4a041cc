use std::collections::BTreeSet;

use millstream_core::Epoch;
use millstream_memory::{Config, Memory};

use crate::fixture::Fixture;

/// The id of stream `s`, as every partition of it is assigned with it.
async fn stream_id(fixture: &Fixture) -> String {
    let mut member = fixture.join_with("ids", "a", |_| {}).await;
    member.settle().await;
    member.membership.leave().await.unwrap();
    let ids: BTreeSet<String> = member.stream_ids.into_iter().collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    ids.into_iter().next().unwrap()
}

async fn recreate(fixture: &Fixture) {
    fixture.streams().delete("s").await.unwrap();
    fixture.create("s", 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_keeps_its_id_and_a_new_one_has_another() {
    let fixture = Fixture::with_stream(2).await;
    let first = stream_id(&fixture).await;
    fixture.streams().add_partitions("s", 3).await.unwrap();
    assert_eq!(stream_id(&fixture).await, first);
    recreate(&fixture).await;
    assert_ne!(stream_id(&fixture).await, first);
}

#[tokio::test(start_paused = true)]
async fn ids_survive_and_do_not_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Fixture::with(|config| config.persist = Some(folder.path().to_owned()));
    let mut ids = Vec::new();
    {
        let fixture = open();
        fixture.create("s", 2).await;
        ids.push(stream_id(&fixture).await);
    }
    {
        let fixture = open();
        assert_eq!(stream_id(&fixture).await, ids[0]);
        recreate(&fixture).await;
        ids.push(stream_id(&fixture).await);
    }
    let fixture = open();
    assert_eq!(stream_id(&fixture).await, ids[1]);
    recreate(&fixture).await;
    ids.push(stream_id(&fixture).await);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 3, "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn epochs_grow_over_deletions_and_reopenings() {
    /// Joins and leaves twice, and returns the epochs.
    async fn epochs(fixture: &Fixture) -> Vec<Epoch> {
        let mut epochs = Vec::new();
        for _ in 0..2 {
            let mut member = fixture.join("a").await;
            member.settle().await;
            epochs.push(member.epoch(0));
            member.membership.leave().await.unwrap();
        }
        epochs
    }
    let folder = tempfile::tempdir().unwrap();
    let open = || Fixture::with(|config| config.persist = Some(folder.path().to_owned()));
    let mut all = Vec::new();
    {
        let fixture = open();
        fixture.create("s", 2).await;
        all.extend(epochs(&fixture).await);
        recreate(&fixture).await;
        all.extend(epochs(&fixture).await);
        recreate(&fixture).await;
    }
    let fixture = open();
    all.extend(epochs(&fixture).await);
    recreate(&fixture).await;
    all.extend(epochs(&fixture).await);
    assert!(all.is_sorted_by(|one, next| one < next), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn ids_are_reproducible_only_by_seed_and_start_time() {
    async fn of(fixture: Fixture) -> String {
        fixture.create("s", 1).await;
        stream_id(&fixture).await
    }
    let seeded = |seed| Fixture::with(|config| config.seed = seed);
    assert_eq!(of(seeded(1)).await, of(seeded(1)).await);
    assert_ne!(of(seeded(1)).await, of(seeded(2)).await);
    let plain = || Fixture {
        memory: Memory::new(Config::default()).unwrap(),
    };
    assert_ne!(of(plain()).await, of(plain()).await);
}
