//! Retention removes records while they are read, and it is lowered while nobody knows. Each record is delivered, or its
//! loss is reported before the next one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use millstream_core::{ErrorKind, Position};
use tokio::time::{Instant, advance, sleep, timeout};

use super::super::{ReadEvent, ResumePoint, RetrievalMode, Settings};
use super::fake::{Fake, Retention};
use super::registry::fan_out;
use super::{Run, for_each_seed, run_with, secs, settings};

const HOUR: u64 = 3_600;

/// The retention that a stream may have. Kinesis has none below a day.
const KEPT: [u64; 4] = [24 * HOUR, 25 * HOUR, 48 * HOUR, 168 * HOUR];

/// What a group knows of its progress, across its readers.
#[derive(Debug)]
struct Group {
    fake: Arc<Fake>,
    mode: RetrievalMode,
    batch_records: usize,
    /// The number of the last delivered record; 0 before the first.
    last: u64,
    /// Whether a loss was reported after that, up to this record.
    lost_to: Option<u64>,
    /// The number of reported losses.
    losses: usize,
    /// The last record before the last report that nothing is left, and when that was.
    caught_up: Option<(u64, Instant)>,
}

impl Group {
    /// Starts a reader as the next owner of the shard does.
    fn read(&self) -> Run {
        let caught_up = self.caught_up.filter(|(after, _)| *after == self.last);
        run_with(
            &self.fake,
            Settings {
                mode: self.mode.clone(),
                batch_records: self.batch_records,
                poll_interval: secs(10),
                caught_up: caught_up.map(|(_, at)| SystemTime::now() - at.elapsed()),
                ..settings(match self.last {
                    0 => ResumePoint::Earliest,
                    last => ResumePoint::After(Position::from(last)),
                })
            },
        )
    }

    /// Checks an event against what the shard has and had.
    fn check(&mut self, event: ReadEvent) {
        match event {
            ReadEvent::Records { records, .. } => {
                for record in records {
                    let number = number(record.position);
                    let is_next = match self.lost_to.take() {
                        Some(lost_to) => number == lost_to,
                        None => number == self.last + 1 || self.last == 0,
                    };
                    assert!(is_next, "record {number} follows {}", self.last);
                    self.last = number;
                }
            }
            ReadEvent::DataLoss { after, earliest } => {
                let earliest = number(earliest);
                assert_eq!(after.map(number), Some(self.last));
                assert!(earliest > self.last && self.lost_to.is_none());
                self.expect_doubt(earliest);
                self.lost_to = Some(earliest);
                self.losses += 1;
            }
            ReadEvent::CaughtUp { after, at } => {
                let at = Instant::now() - at.elapsed().unwrap_or_default();
                self.caught_up = Some((after.map_or(0, number), at));
            }
            ReadEvent::Behind(_) => {}
            event => panic!("{event:?}"),
        }
    }

    /// Asserts that a loss is reported only if records are gone, or nothing shows that none are: the last record is gone,
    /// and it is a day since nothing was left.
    fn expect_doubt(&self, earliest: u64) {
        if earliest > self.last + 1 {
            return;
        }
        let trimmed = self.fake.lock().trimmed as u64;
        assert!(trimmed >= self.last, "{} is still there", self.last);
        let is_known =
            |(after, at): (u64, Instant)| after == self.last && at.elapsed() < secs(23 * HOUR - 60);
        assert!(!self.caught_up.is_some_and(is_known), "nothing was left");
    }

    /// Takes events for a while.
    async fn take(&mut self, run: &mut Run, most: usize, within: Duration) {
        let deadline = Instant::now() + within;
        for _ in 0..most {
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, run.said.recv()).await {
                Ok(said) => self.check(said.expect("it goes on").1),
                Err(_) => return,
            }
        }
    }
}

fn number(position: Position) -> u64 {
    position
        .to_string()
        .parse()
        .expect("numbers are small here")
}

/// Returns a shard with records of the last days, the oldest first.
fn shard(rng: &mut Rng) -> Arc<Fake> {
    let count = rng.usize(1..60);
    let fake = Fake::new(1..=count as u64);
    let mut ages: Vec<_> = (0..count).map(|_| rng.u64(60..60 * HOUR)).collect();
    if rng.bool() {
        // Records that follow on one another, around the age at which they are removed.
        let oldest = rng.u64(23 * HOUR..26 * HOUR);
        ages.iter_mut().for_each(|age| *age = oldest - *age % HOUR);
    }
    ages.sort_unstable_by(|one, other| other.cmp(one));
    let stored = ages.iter().map(|age| Instant::now() - secs(*age));
    fake.lock().retention = Some(Retention {
        stored: stored.collect(),
        kept: secs(KEPT[rng.usize(2..4)]),
    });
    fake
}

async fn scenario(mut rng: Rng) -> usize {
    // There is a past.
    advance(secs(100 * HOUR)).await;
    let fake = shard(&mut rng);
    let mut stored = fake.lock().records.len() as u64;
    fake.lock().page = rng.usize(1..12);
    let mut group = Group {
        mode: match rng.bool() {
            true => RetrievalMode::Polling,
            false => fan_out(),
        },
        batch_records: rng.usize(1..12),
        last: 0,
        lost_to: None,
        losses: 0,
        caught_up: None,
        fake: fake.clone(),
    };
    let mut run = group.read();
    for _ in 0..rng.usize(10..60) {
        match rng.u32(0..10) {
            0 => {
                let kept = secs(*rng.choice(&KEPT).expect("there are some"));
                let mut inner = fake.current();
                inner.retention.as_mut().expect("it has one").kept = kept;
            }
            1 => {
                let more = rng.u64(1..20);
                fake.store(stored + 1..=stored + more);
                stored += more;
            }
            2 => fake.lock().page = rng.usize(1..12),
            3 => fake.lock().empty_answers = rng.usize(0..6),
            4 => {
                let mut inner = fake.lock();
                let fault = *rng
                    .choice(&[ErrorKind::Throttled, ErrorKind::Unavailable])
                    .expect("there are some");
                inner.records_faults.extend([fault].repeat(rng.usize(0..2)));
                inner.push_faults.extend([fault].repeat(rng.usize(0..2)));
                inner
                    .iterator_faults
                    .extend([fault].repeat(rng.usize(0..2)));
            }
            // Nobody takes anything: what the reader has asked for gets old.
            5 => sleep(secs(rng.u64(0..HOUR / 2))).await,
            6 => sleep(Duration::from_millis(rng.u64(0..2_000))).await,
            7 => {
                run.reader.pause();
                group.take(&mut run, 3, secs(rng.u64(0..900))).await;
                run.reader.resume();
            }
            8 => {
                drop(run);
                // An event that was not taken goes with the reader, as with a member that dies.
                group.lost_to = None;
                sleep(secs(*rng.choice(&[0, 60, 30 * HOUR]).expect("some"))).await;
                run = group.read();
            }
            _ => {}
        }
        let within = Duration::from_millis(rng.u64(0..60_000));
        group.take(&mut run, rng.usize(0..8), within).await;
    }
    fake.store([stored + 1]);
    fake.lock().empty_answers = 0;
    let deadline = Instant::now() + secs(HOUR);
    while group.last <= stored {
        assert!(Instant::now() < deadline, "stuck after {}", group.last);
        group.take(&mut run, 1, secs(HOUR)).await;
    }
    group.losses
}

#[test]
fn each_record_is_delivered_or_its_loss_is_reported() {
    for_each_seed(async |seed| {
        scenario(Rng::with_seed(seed)).await;
    });
}
