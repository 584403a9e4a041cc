//! How long partitions stand still when a member leaves, joins, or dies.
//!
//! Three members share six partitions, to which 2,000 records come each second. One of them leaves
//! cleanly, another one joins, and one is killed; each time the group is watched until it has
//! settled. A partition that *moved* stood still from the last record at its old owner to the first
//! one at its new owner, and counts with the longest such time of the event. One that did not move
//! counts with the longest time between two of its records.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, ThreadedProducer};

use crate::job::{Measured, Protocol, Side, Target, Task};
use crate::member::HandledRecord;
use crate::{Result, clock, raw};

pub(crate) const PARTITIONS: i32 = 6;
const PER_SECOND: u64 = 2_000;
const MEMBERS: usize = 3;
/// A group has settled when every partition has had the same owner for so long, and was read.
const SETTLED: Duration = Duration::from_secs(3);
/// By default a killed member of librdkafka is missed after 45 s.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Before an event, a partition is watched for so long.
const BEFORE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Handled {
    member: usize,
    partition: usize,
    at: Duration,
}

#[derive(Default)]
struct Log(Mutex<Vec<Handled>>);

impl Log {
    fn with<T>(&self, look: impl FnOnce(&mut Vec<Handled>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Group {
    by: Side,
    protocol: Protocol,
    target: Target,
    log: Arc<Log>,
    members: BTreeMap<usize, Child>,
    joined: usize,
}

/// What an event did to partitions, in milliseconds.
struct Stalls {
    moved: f64,
    unmoved: f64,
}

pub(crate) fn run(by: Side, protocol: Protocol, target: &Target) -> Result<Measured> {
    let feed = Feed::start(target)?;
    let mut group = Group {
        by,
        protocol,
        target: target.clone(),
        log: Arc::default(),
        members: BTreeMap::new(),
        joined: 0,
    };
    for _ in 0..MEMBERS {
        group.join()?;
    }
    group.settle(clock::monotonic())?;
    let leave = group.watch(|group| group.leave())?;
    let join = group.watch(Group::join)?;
    let kill = group.watch(Group::kill)?;
    group.end()?;
    feed.stop()?;
    let unmoved = [&leave, &join, &kill].map(|each| each.unmoved);
    let unmoved = unmoved.into_iter().fold(0.0, f64::max);
    Ok([
        ("leave".into(), leave.moved),
        ("join".into(), join.moved),
        ("kill".into(), kill.moved),
        ("unmoved".into(), unmoved),
    ]
    .into())
}

impl Group {
    fn join(&mut self) -> Result<()> {
        let member = self.joined;
        self.joined += 1;
        let task = Task::Member(self.by, self.protocol, self.target.clone());
        let mut child = task.command()?.spawn()?;
        let out = child.stdout.take().ok_or("no standard output")?;
        self.members.insert(member, child);
        let log = self.log.clone();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // The last line of a killed process may be half a line.
                let Ok(HandledRecord { partition, nanos }) = serde_json::from_str(&line) else {
                    break;
                };
                let at = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
                log.with(|log| {
                    log.push(Handled {
                        member,
                        partition,
                        at,
                    })
                });
            }
        });
        Ok(())
    }

    fn oldest(&mut self) -> Result<Child> {
        let (_, child) = self.members.pop_first().ok_or("there is no member")?;
        Ok(child)
    }

    /// Begins to leave, and is not waited for: it drains meanwhile.
    fn leave(&mut self) -> Result<()> {
        let mut child = self.oldest()?;
        drop(child.stdin.take());
        thread::spawn(move || child.wait());
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        let mut child = self.oldest()?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        for (_, mut child) in std::mem::take(&mut self.members) {
            drop(child.stdin.take());
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("a member ended with {status}").into());
            }
        }
        Ok(())
    }

    fn watch(&mut self, event: impl FnOnce(&mut Self) -> Result<()>) -> Result<Stalls> {
        let begun = clock::monotonic();
        event(self)?;
        self.settle(begun)?;
        Ok(self.log.with(|log| {
            log.retain(|each| each.at + BEFORE >= begun);
            stalls(log)
        }))
    }

    /// Waits until all members that are there share all partitions evenly.
    fn settle(&mut self, since: Duration) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let from = clock::monotonic().saturating_sub(SETTLED);
            let owners = self.log.with(|log| owners(log, from));
            if from > since && self.shared(&owners) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("the group has not settled: {owners:?}").into());
            }
            for (number, child) in &mut self.members {
                if let Some(status) = child.try_wait()? {
                    return Err(format!("member {number} ended with {status}").into());
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn shared(&self, owners: &BTreeMap<usize, BTreeSet<usize>>) -> bool {
        let each = PARTITIONS as usize / self.members.len();
        let mut counts = BTreeMap::new();
        for owner in owners.values().flatten() {
            *counts.entry(*owner).or_insert(0) += 1;
        }
        owners.len() == PARTITIONS as usize
            && counts.keys().eq(self.members.keys())
            && counts.values().all(|count| *count == each)
    }
}

/// Who is left after an error must not stay.
impl Drop for Group {
    fn drop(&mut self) {
        for child in self.members.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Who has handled records of which partition since then.
fn owners(log: &[Handled], from: Duration) -> BTreeMap<usize, BTreeSet<usize>> {
    let mut owners = BTreeMap::<_, BTreeSet<_>>::new();
    for each in log.iter().filter(|each| each.at >= from) {
        owners
            .entry(each.partition)
            .or_default()
            .insert(each.member);
    }
    owners
}

fn stalls(log: &[Handled]) -> Stalls {
    let mut partitions = BTreeMap::<_, Vec<_>>::new();
    for each in log {
        let times = partitions.entry(each.partition).or_default();
        times.push((each.at, each.member));
    }
    let (mut moved, mut unmoved) = (Duration::ZERO, Duration::ZERO);
    for times in partitions.values_mut() {
        times.sort_unstable();
        let gaps = times
            .windows(2)
            .map(|pair| (pair[1].0 - pair[0].0, pair[0].1 != pair[1].1));
        let gaps = gaps.collect::<Vec<_>>();
        let longest = |moves: bool| {
            gaps.iter()
                .filter(|gap| gap.1 == moves)
                .map(|gap| gap.0)
                .max()
        };
        match longest(true) {
            Some(gap) => moved = moved.max(gap),
            None => unmoved = unmoved.max(longest(false).unwrap_or_default()),
        }
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Stalls {
        moved: ms(moved),
        unmoved: ms(unmoved),
    }
}

/// The records that the group reads.
struct Feed {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), KafkaError>>,
}

impl Feed {
    fn start(target: &Target) -> Result<Self> {
        let producer: ThreadedProducer<_> = raw::producer(target, 0).create()?;
        let ended = Arc::new(AtomicBool::new(false));
        let (ends, topic) = (ended.clone(), target.topic.clone());
        let thread = thread::spawn(move || {
            let begun = Instant::now();
            let mut partitions = (0..PARTITIONS).cycle();
            for tick in 0.. {
                if ends.load(Relaxed) {
                    return Ok(());
                }
                let due = begun + Duration::from_millis(tick);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                for partition in partitions.by_ref().take((PER_SECOND / 1_000) as usize) {
                    let record = BaseRecord::<(), _>::to(&topic).payload("x");
                    let sent = producer.send(record.partition(partition));
                    sent.map_err(|(error, _)| error)?;
                }
            }
            Ok(())
        });
        Ok(Self { ended, thread })
    }

    fn stop(self) -> Result<()> {
        self.ended.store(true, Relaxed);
        let ended = self.thread.join().map_err(|_| "the producer panicked")?;
        Ok(ended?)
    }
}
