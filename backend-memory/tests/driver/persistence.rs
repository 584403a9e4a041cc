use std::fs;
use std::path::Path;
use std::time::Duration;

use millstream_core::driver::{Backend, CheckpointUpdate};
use millstream_core::{ErrorKind, Position, Record, Start};
use millstream_memory::{Config, Memory};

use crate::fixture::{Fixture, SESSION, partition};

fn open(folder: &Path) -> Fixture {
    Fixture::with(|config| config.persist = Some(folder.to_owned()))
}

fn reopen(folder: &Path) -> millstream_core::Result<Memory> {
    let mut config = Config::default();
    config.persist = Some(folder.to_owned());
    Memory::new(config)
}

fn journal(folder: &Path) -> std::path::PathBuf {
    folder.join("millstream-memory.journal")
}

#[tokio::test(start_paused = true)]
async fn everything_survives() {
    let folder = tempfile::tempdir().unwrap();
    let (old_epoch, stored) = {
        let fixture = open(folder.path());
        assert!(fixture.memory.guarantees().durable);
        fixture.create("gone", 1).await;
        fixture.create("s", 2).await;
        fixture.streams().delete("gone").await.unwrap();
        let record = Record::new("payload")
            .key("k")
            .header("h", "v")
            .header("h", "w");
        fixture
            .producer("s")
            .await
            .send(vec![record, Record::tombstone("k")])
            .await
            .into_iter()
            .for_each(|stored| _ = stored.unwrap());
        fixture.fill(2, 5).await;
        fixture.streams().split(&partition(0)).await.unwrap();
        fixture.fill(3, 2).await;
        let mut pinned = fixture
            .join_with("latest", "p", |join| join.start = Start::Latest)
            .await;
        pinned.settle().await;
        let mut member = fixture.join("a").await;
        member.settle().await;
        let epoch = member.epoch(1);
        member.checkpoint_all().await;
        member.complete().await;
        (epoch, member.records)
    };
    let fixture = open(folder.path());
    assert_eq!(fixture.streams().list().await.unwrap(), ["s"]);
    let described = fixture.streams().describe("s").await.unwrap();
    assert_eq!(described.partitions.len(), 4);
    assert_eq!(described.partitions[2].parents, [partition(0)]);
    let progress = fixture.progress("g").await;
    assert!(progress[0].completed);
    assert_eq!(
        progress[1].position,
        stored[&partition(1)].last().map(|r| r.position)
    );
    assert_eq!(progress[1].epoch, Some(old_epoch));

    fixture.fill(3, 1).await;
    let mut member = fixture.join("b").await;
    member.settle().await;
    assert_eq!(
        member.partitions(),
        ["1", "2", "3"],
        "the completed parent is done"
    );
    assert!(member.epoch(1) > old_epoch);
    let mut pinned = fixture.join_with("latest", "p", |_| {}).await;
    pinned.settle().await;
    assert_eq!(pinned.payloads.len(), 3, "the pin survives");
    let mut replay = fixture.join_with("replay", "r", |_| {}).await;
    replay.settle().await;
    for (partition, records) in &replay.records {
        let before = stored.get(partition).map_or(&[][..], |records| records);
        assert_eq!(&records[..before.len()], before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_torn_tail_is_removed_and_acknowledged_records_stay() {
    let folder = tempfile::tempdir().unwrap();
    {
        let fixture = open(folder.path());
        fixture.create("s", 1).await;
        fixture.send(&["k=1", "k=2"]).await;
        fixture.send(&["k=3"]).await;
    }
    let whole = fs::read(journal(folder.path())).unwrap();
    // Whatever is cut off, the journal opens with a prefix of the batches.
    let mut seen = Vec::new();
    for cut in (0..whole.len()).rev() {
        fs::write(journal(folder.path()), &whole[..cut]).unwrap();
        let fixture = open(folder.path());
        if fixture.streams().list().await.unwrap().is_empty() {
            break;
        }
        let mut member = fixture.join("a").await;
        member.settle().await;
        if seen.last() != Some(&member.payloads) {
            seen.push(member.payloads);
        }
    }
    assert_eq!(seen, [vec!["1", "2"], vec![]]);
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_publish_is_not_stored_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let before = {
        let fixture = open(folder.path());
        fixture.create("s", 1).await;
        fixture.create("r", 1).await;
        fixture.fill(1, 3).await;
        let mut member = fixture.join("a").await;
        member.settle().await;
        let before = fs::metadata(journal(folder.path())).unwrap().len() as usize;
        let update = CheckpointUpdate {
            partition: partition(0),
            epoch: member.epoch(0),
            position: Position::from(2),
        };
        let results = [Record::new("1").header("h", "v"), Record::new("2")];
        let step = member.membership.publish("r", &results, &[update]).await;
        step.unwrap();
        before
    };
    let whole = fs::read(journal(folder.path())).unwrap();
    assert!(whole.len() > before);
    for cut in (before..=whole.len()).rev() {
        fs::write(journal(folder.path()), &whole[..cut]).unwrap();
        let fixture = open(folder.path());
        let mut reader = fixture
            .join_with("reader", "r", |join| join.streams = vec!["r".into()])
            .await;
        reader.settle().await;
        let position = fixture.progress("g").await[0].position;
        let expected = match cut == whole.len() {
            true => (
                vec!["1".to_owned(), "2".to_owned()],
                Some(Position::from(2)),
            ),
            false => (vec![], None),
        };
        assert_eq!((reader.payloads, position), expected, "cut at {cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_damaged_byte_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    {
        let fixture = open(folder.path());
        fixture.create("s", 1).await;
        fixture.send(&["k=1"]).await;
        fixture.send(&["k=2"]).await;
    }
    let whole = fs::read(journal(folder.path())).unwrap();
    for at in 0..whole.len() {
        for flipped in [0x01, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= flipped;
            fs::write(journal(folder.path()), &damaged).unwrap();
            let error = match reopen(folder.path()) {
                Err(error) => error,
                Ok(_) => panic!("byte {at} of {} flipped by {flipped:#x}", whole.len()),
            };
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}");
            assert!(
                error.message().contains("millstream-memory.journal"),
                "{error}"
            );
            assert_eq!(
                fs::read(journal(folder.path())).unwrap(),
                damaged,
                "nothing is removed"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tail_of_zeros_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    {
        let fixture = open(folder.path());
        fixture.create("s", 1).await;
        fixture.send(&["k=1"]).await;
    }
    let mut grown = fs::read(journal(folder.path())).unwrap();
    grown.extend([0; 100]);
    fs::write(journal(folder.path()), &grown).unwrap();
    let fixture = open(folder.path());
    let mut member = fixture.join("a").await;
    member.settle().await;
    assert_eq!(member.payloads, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_no_journal_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for content in [&b"some text that is no journal"[..], &[1; 64]] {
        fs::write(journal(folder.path()), content).unwrap();
        assert_eq!(
            reopen(folder.path()).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        assert_eq!(fs::read(journal(folder.path())).unwrap(), content);
    }
}

#[tokio::test(start_paused = true)]
async fn null_header_values_survive() {
    let folder = tempfile::tempdir().unwrap();
    let mut sent = Record::new("1").header("empty", "");
    sent.headers.push_null("null");
    {
        let fixture = open(folder.path());
        fixture.create("s", 1).await;
        let results = fixture.producer("s").await.send(vec![sent.clone()]).await;
        assert!(results.iter().all(Result::is_ok));
    }
    let fixture = open(folder.path());
    let mut member = fixture.join("a").await;
    member.settle().await;
    assert_eq!(member.records[&partition(0)][0].headers, sent.headers);
}

#[tokio::test(start_paused = true)]
async fn a_folder_has_one_broker() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = open(folder.path());
    assert_eq!(
        reopen(folder.path()).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    drop(fixture);
    reopen(folder.path()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn members_of_the_previous_run_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    {
        let fixture = open(folder.path());
        fixture.create("s", 1).await;
        fixture.fill(1, 3).await;
        let mut member = fixture.join("a").await;
        member.settle().await;
    }
    let fixture = open(folder.path());
    let mut member = fixture.join("a").await;
    let started = tokio::time::Instant::now();
    member.settle().await;
    assert_eq!(member.payloads.len(), 3);
    assert!(started.elapsed() < SESSION);
}

#[tokio::test(start_paused = true)]
async fn time_never_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let last = {
        let fixture = open(folder.path());
        fixture.create("s", 1).await;
        tokio::time::advance(Duration::from_secs(500)).await;
        fixture.send(&["k=1"]).await;
        let mut member = fixture.join("a").await;
        member.settle().await;
        member.records[&partition(0)][0].timestamp
    };
    let fixture = open(folder.path());
    fixture.send(&["k=2"]).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    assert!(member.records[&partition(0)][1].timestamp >= last);
}
