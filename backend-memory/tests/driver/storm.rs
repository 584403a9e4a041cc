//! Members join, leave, pause and disconnect at random while partitions split and merge: no record is
//! lost and no key is reordered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use millstream_core::driver::Backend;
use millstream_core::{Epoch, Partition};
use millstream_memory::Target;

use crate::fixture::{Fixture, Member};

#[derive(Debug, Clone)]
enum Step {
    Send,
    Join,
    Leave(usize),
    Disconnect(usize),
    Pause(usize, u64),
    Steal(usize),
    Split(usize),
    Merge(usize, usize),
    Reset,
    Wait(u64),
    Work,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Send),
        2 => Just(Step::Join),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => any::<usize>().prop_map(Step::Disconnect),
        1 => (any::<usize>(), 1u64..30).prop_map(|(member, pause)| Step::Pause(member, pause)),
        1 => any::<usize>().prop_map(Step::Steal),
        1 => any::<usize>().prop_map(Step::Split),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Step::Merge(one, other)),
        1 => Just(Step::Reset),
        2 => (0u64..12).prop_map(Step::Wait),
        4 => Just(Step::Work),
    ]
}

#[derive(Default)]
struct Run {
    sent: u64,
    members: Vec<Member>,
    joined: u64,
    /// The member that got each epoch of each partition.
    owners: BTreeMap<(Partition, Epoch), u64>,
    /// The last settled record of each key, in the order of sending.
    settled: BTreeMap<String, u64>,
}

const KEYS: u64 = 12;

impl Run {
    async fn go(mut self, steps: &[Step]) {
        let fixture = Fixture::with_stream(2).await;
        for step in steps {
            self.step(&fixture, step).await;
        }
        // When all others are gone, one more member settles the rest.
        self.members.clear();
        tokio::time::advance(Duration::from_secs(60)).await;
        self.step(&fixture, &Step::Join).await;
        for _ in 0..steps.len() + 4 {
            self.work().await;
        }
        for key in 0..KEYS.min(self.sent) {
            let last = (self.sent - 1 - key) / KEYS;
            assert_eq!(
                self.settled.get(&format!("k{key}")),
                Some(&last),
                "key {key}"
            );
        }
    }

    async fn step(&mut self, fixture: &Fixture, step: &Step) {
        let streams = fixture.streams();
        let open = || async {
            let described = fixture.streams().describe("s").await.unwrap();
            let open = described.partitions.into_iter().filter(|p| p.open);
            open.map(|p| p.partition).collect::<Vec<_>>()
        };
        match step {
            Step::Send => {
                let first = self.sent;
                self.sent += 7;
                let text = |n| format!("k{}=k{}:{}", n % KEYS, n % KEYS, n / KEYS);
                let records: Vec<String> = (first..self.sent).map(text).collect();
                fixture
                    .send(&records.iter().map(String::as_str).collect::<Vec<_>>())
                    .await;
            }
            Step::Join => {
                self.joined += 1;
                let member = fixture.join(&self.joined.to_string()).await;
                self.members.push(member);
            }
            Step::Leave(n) if !self.members.is_empty() => {
                let member = self.members.remove(n % self.members.len());
                member.membership.leave().await.unwrap();
            }
            Step::Disconnect(n) if !self.members.is_empty() => {
                self.members.remove(n % self.members.len());
            }
            Step::Pause(n, pause) if !self.members.is_empty() => {
                let id = self.members[n % self.members.len()]
                    .membership
                    .id()
                    .to_owned();
                let name = id.split('-').next().unwrap();
                let pause = Duration::from_secs(*pause);
                fixture
                    .memory
                    .faults()
                    .pause(&Target::named(name), pause)
                    .unwrap();
            }
            Step::Steal(n) => {
                let open = open().await;
                // It may have no owner, or the group may not exist yet.
                let _ = fixture.memory.faults().steal("g", &open[n % open.len()]);
            }
            Step::Split(n) => {
                let open = open().await;
                streams.split(&open[n % open.len()]).await.unwrap();
            }
            Step::Merge(one, other) => {
                let open = open().await;
                let (one, other) = (&open[one % open.len()], &open[other % open.len()]);
                if one != other {
                    streams.merge(one, other).await.unwrap();
                }
            }
            Step::Reset if self.joined > 0 => {
                let checkpoints = fixture.memory.checkpoints("g");
                let reset = checkpoints.reset("s", millstream_core::Start::Earliest);
                reset.await.unwrap();
                self.settled.clear();
            }
            Step::Wait(seconds) => tokio::time::advance(Duration::from_secs(*seconds)).await,
            Step::Work => self.work().await,
            _ => {}
        }
    }

    /// Lets every member read, settle in order, release and complete.
    async fn work(&mut self) {
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            let number: u64 = member
                .membership
                .id()
                .split('-')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            member.settle().await;
            for (partition, epoch, _) in member.assigned.drain(..) {
                let before = self.owners.insert((partition, epoch), number);
                assert_eq!(before, None, "an epoch has one owner");
            }
            let owned: BTreeSet<Partition> = member.owned.keys().cloned().collect();
            for (partition, records) in &member.records {
                if !owned.contains(partition) {
                    continue;
                }
                let last = records.last().map(|record| record.position);
                let (epoch, last) = (member.owned[partition], last.unwrap());
                let id = partition.id().parse().unwrap();
                if member
                    .checkpoint(id, epoch, last.offset().unwrap())
                    .await
                    .is_err()
                {
                    continue;
                }
                for record in records {
                    let text =
                        String::from_utf8(record.payload.as_ref().unwrap().to_vec()).unwrap();
                    let (key, n) = text.split_once(':').unwrap();
                    let n: u64 = n.parse().unwrap();
                    let next = self.settled.get(key).map_or(0, |settled| settled + 1);
                    assert!(n <= next, "{key} jumps from {next} to {n}");
                    self.settled
                        .insert(key.to_owned(), n.max(next.saturating_sub(1)));
                }
            }
            member.records.clear();
            for (partition, epoch) in std::mem::take(&mut member.ended) {
                if member.membership.complete(&partition, epoch).await.is_ok() {
                    member.owned.remove(&partition);
                }
            }
            for (partition, epoch) in std::mem::take(&mut member.revoking) {
                if member.membership.release(&partition, epoch).await.is_ok() {
                    member.owned.remove(&partition);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_no_key_is_reordered(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(Run::default().go(&steps));
    }
}
