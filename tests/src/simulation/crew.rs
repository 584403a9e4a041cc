use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_core::{ConsumerGroup, DeadLetter, OnExhausted, Result, Retry, Start};
use tokio::task::JoinHandle;

use super::chain::{Chain, Links};
use super::habits::Habits;
use super::member::Seat;
use super::script::{Backoff, DEAD_LETTERS, GroupPlan, LastResort, Script, Style};
use super::world::{World, lock};
use crate::history::Event;

/// The members of a group, and what they have in common.
#[derive(Debug)]
pub(super) struct Crew {
    pub(super) plan: GroupPlan,
    pub(super) world: World,
    pub(super) group: ConsumerGroup,
    pub(super) habits: Habits,
    pub(super) chain: Option<Chain>,
    /// Those who are there, in the order of their coming.
    seats: Mutex<Vec<(Arc<Seat>, JoinHandle<()>)>>,
    names: AtomicU64,
    /// How many gaps the members told of that are gone.
    jumps: AtomicU64,
    /// How many members are frozen now.
    frozen: AtomicUsize,
}

/// What a crew leaves to the one that follows.
#[derive(Debug, Default)]
pub(super) struct Retired {
    names: u64,
    jumps: u64,
    links: Option<Links>,
}

impl Crew {
    /// Makes one without members, which follows on one `before`.
    pub(super) async fn new(
        world: &World,
        script: &Script,
        plan: &GroupPlan,
        before: Option<Retired>,
    ) -> Result<Self> {
        let Retired {
            names,
            jumps,
            links,
        } = before.unwrap_or_default();
        let chain = match &plan.style {
            Style::Chain { to, once } => {
                let client = match once {
                    true => &world.client,
                    false => &world.other_client,
                };
                // It never gives up: a handler that was done would have failed after all.
                let producer = client.producer(&**to).timeout(A_DAY).open().await?;
                Some(Chain::new(world, producer, *once, links))
            }
            Style::Each | Style::Batches(_) | Style::Pull(_) => None,
        };
        Ok(Self {
            plan: plan.clone(),
            world: world.clone(),
            group: group(world, plan),
            habits: Habits::new(plan.handler.clone(), script.seed, script.session_timeout),
            chain,
            seats: Mutex::default(),
            names: AtomicU64::new(names),
            jumps: AtomicU64::new(jumps),
            frozen: AtomicUsize::new(0),
        })
    }

    /// Ends it, when all members are gone.
    pub(super) async fn retire(&self) -> Retired {
        Retired {
            names: self.names.load(Relaxed),
            jumps: self.jumps(),
            links: match &self.chain {
                Some(chain) => Some(chain.retire(&self.world).await),
                None => None,
            },
        }
    }

    /// After a stop at a gap: moves the group to what is left of the stream.
    pub(super) async fn go_on(&self, stream: Option<&str>) {
        let stream = stream.unwrap_or_default();
        self.world.record(Event::Reset {
            group: self.plan.name.as_str().into(),
            stream: stream.into(),
            skips: false,
        });
        let moved = self.group.reset(stream, Start::Earliest).await;
        self.world.expect("go on after a gap", moved);
    }

    /// A name that no member of any group had before.
    pub(super) fn name(&self) -> String {
        let number = self.names.fetch_add(1, Relaxed) + 1;
        format!("{}-{number}", self.plan.name)
    }

    /// Takes on one more member.
    pub(super) fn hire(self: &Arc<Self>) {
        let seat = Arc::new(Seat::new(self.clone()));
        let task = tokio::spawn(seat.clone().work());
        lock(&self.seats).push((seat, task));
    }

    /// Takes on as many as are planned.
    pub(super) fn hire_all(self: &Arc<Self>) {
        for _ in 0..self.plan.members {
            self.hire();
        }
    }

    pub(super) fn size(&self) -> usize {
        lock(&self.seats).len()
    }

    pub(super) fn seat(&self, pick: usize) -> Option<Arc<Seat>> {
        let seats = lock(&self.seats);
        let place = pick.checked_rem(seats.len())?;
        Some(seats[place].0.clone())
    }

    /// Asks a member to leave in good order, and answers what to wait for.
    pub(super) fn dismiss(&self, pick: usize) -> Option<JoinHandle<()>> {
        let (seat, task) = self.take(pick)?;
        seat.leave();
        Some(task)
    }

    /// Kills a member, and answers what to wait for.
    pub(super) fn kill(&self, pick: usize) -> Option<JoinHandle<()>> {
        let (seat, task) = self.take(pick)?;
        seat.crashed();
        seat.gone();
        task.abort();
        Some(task)
    }

    /// Makes one member go, by force or not, and answers what to wait for.
    pub(super) fn stop(&self, abrupt: bool) -> Option<JoinHandle<()>> {
        match abrupt {
            true => self.kill(0),
            false => self.dismiss(0),
        }
    }

    fn take(&self, pick: usize) -> Option<(Arc<Seat>, JoinHandle<()>)> {
        let mut seats = lock(&self.seats);
        let place = pick.checked_rem(seats.len())?;
        Some(seats.remove(place))
    }

    /// Records that something is about to befall a member, or anyone of the group.
    pub(super) fn fault(&self, member: Option<&str>, what: &str) {
        self.world.record(Event::Fault {
            group: Some(self.plan.name.as_str().into()),
            member: member.map(Into::into),
            what: what.into(),
        });
    }

    /// Counts the gaps that a member has told of.
    pub(super) fn jumped(&self, gaps: u64) {
        self.jumps.fetch_add(gaps, Relaxed);
    }

    pub(super) fn jumps(&self) -> u64 {
        self.jumps.load(Relaxed)
    }

    /// Counts a member that is frozen, until it is told that it is not.
    pub(super) fn freeze(&self) {
        self.frozen.fetch_add(1, Relaxed);
    }

    pub(super) fn thaw(&self) {
        self.frozen.fetch_sub(1, Relaxed);
    }

    /// Records that faults are over, if they are: from here on, new owners keep all promises.
    pub(super) fn heal(&self) {
        if self.frozen.load(Relaxed) == 0 && self.plan.drains_fully() {
            self.world.record(Event::Healed {
                group: self.plan.name.as_str().into(),
            });
        }
    }
}

fn group(world: &World, plan: &GroupPlan) -> ConsumerGroup {
    let retry = match plan.backoff {
        Backoff::Fixed(delay) => Retry::fixed(delay),
        Backoff::Exponential(min, max) => Retry::exponential().delays(min, max.max(min)),
    };
    let last = match plan.last_resort {
        LastResort::DeadLetter => DeadLetter::stream(DEAD_LETTERS).into(),
        LastResort::Skip => OnExhausted::Skip,
        LastResort::Stop => OnExhausted::Stop,
    };
    let group = world
        .client
        .group(&*plan.name)
        .start(plan.start)
        .concurrency(plan.concurrency)
        .max_unsettled_per_partition(plan.window)
        .buffer_bytes(plan.buffer_bytes)
        .max_poll_records(plan.fetch)
        .checkpoint_interval(plan.checkpoint_interval)
        .checkpoint_records(plan.checkpoint_records)
        .drain_timeout(plan.drain)
        .on_data_loss(plan.on_data_loss)
        .on_failure(retry.attempts(plan.attempts).then(last));
    plan.streams
        .iter()
        .fold(group, |group, stream| group.stream(&**stream))
}

const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a member whose policy is to stop stays away.
pub(super) const TIME_OUT: Duration = Duration::from_millis(100);
