//! A fake of Kinesis with scripted failures, whose shards split and merge.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use millstream_core::{Error, ErrorKind, Position, Result};
use tokio::time::{Instant, sleep};

use crate::aggregate::Entry;
use crate::producer::transport::{ShardPosition, Transport};
use crate::stream::{HashKey, HashRange, Shard};

#[derive(Clone)]
pub(super) struct Fake(Arc<Mutex<World>>);

pub(super) struct World {
    pub(super) shards: Vec<Shard>,
    /// The content of each shard, by its index in `shards`.
    pub(super) stored: Vec<Vec<(Position, Entry)>>,
    pub(super) random: fastrand::Rng,
    pub(super) faults: Faults,
    /// The results of the next requests, before any random fault.
    pub(super) script: VecDeque<Script>,
    /// The result of each entry of a key.
    pub(super) keys: HashMap<Vec<u8>, ErrorKind>,
    /// Requests of this size are rejected as a whole.
    pub(super) too_large: usize,
    pub(super) limit: Limit,
    /// Added to the time of each request.
    pub(super) late: Duration,
    /// Added to the time of each request for each of its bytes, as by a slow connection.
    pub(super) late_per_byte: Duration,
    buckets: HashMap<usize, (Instant, f64, f64)>,
    pub(super) requests: Vec<usize>,
    pub(super) throttled: usize,
    pub(super) under_way: usize,
    pub(super) most_under_way: usize,
    pub(super) listings: usize,
    /// The response of lists while it is set.
    pub(super) old_list: Option<Vec<Shard>>,
    number: u64,
}

/// How the limit of 1,000 records and 1 MiB per second and shard is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    None,
    /// By token buckets, like a service that counts tenths of a second.
    Buckets,
    /// By the second, as emulators do: each second starts at zero.
    Seconds,
}

/// In percent of requests or of entries.
#[derive(Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) lost_before: u32,
    pub(super) lost_after: u32,
    pub(super) throttled: u32,
    pub(super) internal: u32,
    pub(super) longest: Duration,
}

#[derive(Clone, Copy)]
pub(super) enum Script {
    /// Nothing is stored, and the response is this error.
    Refuse(ErrorKind),
    /// Everything is stored, and there is no response.
    StoreAndTimeOut,
    /// The response has this delay.
    Slow(Duration),
}

impl Fake {
    pub(super) fn new(seed: u64, shards: u32) -> Self {
        let step = u128::MAX / u128::from(shards);
        let mut world = World {
            shards: Vec::new(),
            stored: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            faults: Faults {
                longest: Duration::from_millis(20),
                ..Faults::default()
            },
            script: VecDeque::new(),
            keys: HashMap::new(),
            too_large: usize::MAX,
            limit: Limit::None,
            late: Duration::ZERO,
            late_per_byte: Duration::ZERO,
            buckets: HashMap::new(),
            requests: Vec::new(),
            throttled: 0,
            under_way: 0,
            most_under_way: 0,
            listings: 0,
            old_list: None,
            number: 0,
        };
        for index in 0..shards {
            let first = step * u128::from(index);
            let is_last = index + 1 == shards;
            let last = if is_last { u128::MAX } else { first + step - 1 };
            world.open(HashRange { first, last }, Vec::new());
        }
        Self(Arc::new(Mutex::new(world)))
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl World {
    fn open(&mut self, range: HashRange, parents: Vec<Arc<str>>) {
        let id = format!("shardId-{:012}", self.shards.len());
        let starting = self.next_position();
        self.shards.push(Shard {
            id: id.into(),
            parents,
            range,
            starting,
            open: true,
        });
        self.stored.push(Vec::new());
    }

    fn next_position(&mut self) -> Position {
        self.number += 1;
        self.number.into()
    }

    fn open_shards(&self) -> Vec<usize> {
        let all = 0..self.shards.len();
        all.filter(|index| self.shards[*index].open).collect()
    }

    pub(super) fn split(&mut self) {
        let open = self.open_shards();
        let index = open[self.random.usize(0..open.len())];
        let HashRange { first, last } = self.shards[index].range;
        if last - first < 4 {
            return;
        }
        let middle = first + self.random.u128(1..last - first);
        self.shards[index].open = false;
        let id = self.shards[index].id.clone();
        self.open(
            HashRange {
                first,
                last: middle - 1,
            },
            vec![id.clone()],
        );
        self.open(
            HashRange {
                first: middle,
                last,
            },
            vec![id],
        );
    }

    pub(super) fn merge(&mut self) {
        let mut open = self.open_shards();
        if open.len() < 2 {
            return;
        }
        open.sort_by_key(|index| self.shards[*index].range.first);
        let at = self.random.usize(1..open.len());
        let (one, other) = (open[at - 1], open[at]);
        let (first, last) = (self.shards[one].range.first, self.shards[other].range.last);
        let parents = [one, other].map(|index| {
            self.shards[index].open = false;
            self.shards[index].id.clone()
        });
        self.open(HashRange { first, last }, parents.into());
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.u32(0..100) < percent
    }

    fn shard_of(&self, entry: &Entry) -> usize {
        let hash = HashKey::of(&entry.partition_key);
        let hash = entry.explicit_hash_key.unwrap_or(hash);
        let mut open = self.open_shards().into_iter();
        open.find(|index| self.shards[*index].range.contains(hash))
            .expect("the open shards leave nothing out")
    }

    /// Returns whether the limits of the shard admit it.
    fn admits(&mut self, shard: usize, bytes: usize) -> bool {
        let now = Instant::now();
        let full = (now, 1_048_576.0, 1_000.0);
        let (at, byte_room, record_room) = self.buckets.entry(shard).or_insert(full);
        let passed = (now - *at).as_secs_f64();
        match self.limit {
            Limit::None => return true,
            Limit::Buckets => {
                *at = now;
                *byte_room = (*byte_room + passed * 1_048_576.0).min(200_000.0);
                *record_room = (*record_room + passed * 1_000.0).min(200.0);
            }
            Limit::Seconds if passed >= 1.0 => (*at, *byte_room, *record_room) = full,
            Limit::Seconds => {}
        }
        if *byte_room < bytes as f64 || *record_room < 1.0 {
            return false;
        }
        *byte_room -= bytes as f64;
        *record_room -= 1.0;
        true
    }

    fn store(&mut self, entry: &Entry) -> Result<ShardPosition> {
        let shard = self.shard_of(entry);
        let error = |kind| Err(Error::new(kind, "send", "as scripted"));
        if let Some(kind) = self.keys.get(&entry.partition_key[..]) {
            return error(*kind);
        }
        let is_throttled = !self.admits(shard, entry.size());
        if is_throttled || self.chance(self.faults.throttled) {
            self.throttled += 1;
            return error(ErrorKind::Throttled);
        }
        let fails = self.chance(self.faults.internal);
        if fails && self.chance(50) {
            return error(ErrorKind::Unavailable);
        }
        let position = self.next_position();
        self.stored[shard].push((position, entry.clone()));
        if fails {
            return error(ErrorKind::Unavailable);
        }
        let shard = self.shards[shard].id.to_string();
        Ok(ShardPosition { shard, position })
    }

    /// Stores the entries of a request in any order: Kinesis promises none.
    fn store_all(&mut self, entries: &[Entry]) -> Vec<Result<ShardPosition>> {
        let mut order: Vec<_> = (0..entries.len()).collect();
        self.random.shuffle(&mut order);
        let mut results: Vec<_> = entries.iter().map(|_| None).collect();
        for index in order {
            results[index] = Some(self.store(&entries[index]));
        }
        results.into_iter().flatten().collect()
    }
}

impl Transport for Fake {
    async fn put(&self, entries: Arc<Vec<Entry>>) -> Result<Vec<Result<ShardPosition>>> {
        let bytes: usize = entries.iter().map(Entry::size).sum();
        let (before, after, script) = {
            let mut world = self.world();
            world.requests.push(entries.len());
            world.under_way += 1;
            world.most_under_way = world.most_under_way.max(world.under_way);
            let longest = world.faults.longest.as_micros() as u64;
            let wait = Duration::from_micros(world.random.u64(1_000..=longest.max(1_000)));
            let script = world.script.pop_front();
            let half = (wait + world.late) / 2;
            (half + world.late_per_byte * bytes as u32, half, script)
        };
        sleep(before).await;
        let error =
            |kind| Err(Error::new(kind, "send", "as scripted").with_source("reset by peer"));
        let (result, late) = {
            let mut world = self.world();
            let (lost_before, lost_after) = (world.faults.lost_before, world.faults.lost_after);
            match script {
                Some(Script::Refuse(kind)) => (error(kind), Duration::ZERO),
                Some(Script::StoreAndTimeOut) => {
                    world.store_all(&entries);
                    (error(ErrorKind::Timeout), Duration::ZERO)
                }
                Some(Script::Slow(late)) => (Ok(world.store_all(&entries)), late),
                None if bytes > world.too_large => (error(ErrorKind::Invalid), Duration::ZERO),
                None if world.chance(lost_before) => {
                    (error(ErrorKind::Unavailable), Duration::ZERO)
                }
                None if world.chance(lost_after) => {
                    world.store_all(&entries);
                    (error(ErrorKind::Timeout), Duration::from_secs(1))
                }
                None => (Ok(world.store_all(&entries)), Duration::ZERO),
            }
        };
        sleep(after + late).await;
        self.world().under_way -= 1;
        result
    }

    async fn shards(&self) -> Result<Vec<Shard>> {
        sleep(Duration::from_millis(5)).await;
        let mut world = self.world();
        world.listings += 1;
        if world.faults.lost_before > 0 && world.chance(20) {
            return Err(Error::new(ErrorKind::Unavailable, "send", "as scripted"));
        }
        Ok(world
            .old_list
            .take()
            .unwrap_or_else(|| world.shards.clone()))
    }
}
