//! Members join, leave and crash while the stream is split and merged.

use conformance::fleet::Member;
use conformance::{Harness, eventually};
use fastrand::Rng;
use millstream_core::{ErrorKind, PartitionDescription};

use crate::fixture::Fixture;

/// The seeds that decide what happens, and in which order.
const SEEDS: [u64; 2] = [1, 2];

const STEPS: usize = 12;

/// The maximum number of members. A larger fleet finds nothing more.
const MOST: usize = 4;

pub(crate) async fn blows(fixture: Fixture) {
    let load = fixture.load().await;
    let mut storm = Storm {
        members: vec![fixture.member("m-0").await],
        count: 1,
    };
    let mut reshards = 0;
    for seed in SEEDS {
        let mut rng = Rng::with_seed(seed);
        for _ in 0..STEPS {
            match rng.u8(..5) {
                0 if storm.members.len() > 1 => storm.pick(&mut rng).crash().await,
                1 if storm.members.len() > 1 => {
                    storm.pick(&mut rng).close().await;
                }
                2 => reshards += usize::from(split(&fixture, &mut rng).await),
                3 => reshards += usize::from(merge(&fixture).await),
                _ => storm.join(&fixture).await,
            }
            fixture.handles(rng.usize(20..80)).await;
        }
    }
    load.stop().await;
    let summary = fixture.fleet.check().await;
    all_is_stored(&fixture).await;
    assert!(summary.crashes >= 1 && reshards >= 4, "{summary:?}");
    for member in storm.members {
        member.close().await;
    }
}

struct Storm {
    members: Vec<Member>,
    /// Returns a name that no member had before.
    count: usize,
}

impl Storm {
    fn pick(&mut self, rng: &mut Rng) -> Member {
        self.members.swap_remove(rng.usize(..self.members.len()))
    }

    async fn join(&mut self, fixture: &Fixture) {
        if self.members.len() < MOST {
            let name = format!("m-{}", self.count);
            self.members.push(fixture.member(&name).await);
            self.count += 1;
        }
    }
}

/// Splits a partition, up to eight partitions. Returns whether there was one to split.
async fn split(fixture: &Fixture, rng: &mut Rng) -> bool {
    let open = fixture.fleet.open_partitions().await;
    if open.len() >= 8 {
        return false;
    }
    let split = fixture.fleet.client.streams();
    let split = split.split(&open[rng.usize(..open.len())]).await;
    split.expect("it is split");
    true
}

/// Merges two partitions. Returns whether there were two adjacent ones.
async fn merge(fixture: &Fixture) -> bool {
    let open = fixture.fleet.open_partitions().await;
    let streams = fixture.fleet.client.streams();
    for (index, one) in open.iter().enumerate() {
        for other in &open[index + 1..] {
            match streams.merge(one, other).await {
                Ok(_) => return true,
                Err(error) => assert_eq!(
                    error.kind(),
                    ErrorKind::Invalid,
                    "they are merged or no neighbours: {error:?}"
                ),
            }
        }
    }
    false
}

/// Waits until the checkpoint has passed all records, and the end of each closed partition.
async fn all_is_stored(fixture: &Fixture) {
    let fleet = &fixture.fleet;
    let described = fleet.client.streams().describe(&fleet.stream).await;
    let partitions = described.expect("the stream is described").partitions;
    let stored = async || {
        let checkpoints = fleet.checkpoints().await;
        let is_stored = |partition: &PartitionDescription| {
            let mut of_it = checkpoints
                .iter()
                .filter(|c| c.partition == partition.partition);
            of_it.any(|c| match partition.open {
                true => c.lag.records == Some(0) || c.position >= partition.latest,
                false => c.completed,
            })
        };
        partitions.iter().all(is_stored).then_some(())
    };
    eventually(fixture.harness.timing(), "all progress is stored", stored).await;
}
