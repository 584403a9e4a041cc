//! The lease coordinator: the loop of one member. It decides which leases to take, whom to notify, and when to scan the
//! table. What the member holds is the renewer's alone.
//!
//! Slow work runs concurrently, and returns a closure that is run when the work has completed. So a slow response of
//! the table delays only its own lease.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use millstream_core::{Error, ErrorKind};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::audit::Audit;
use super::bootstrap::Bootstrap;
use super::command::Command;
use super::options::{LeaseEvent, WorkerOptions};
use super::renewer::LeaseRenewer;
use super::streams::Streams;
use super::table::Table;
use super::view::View;
use crate::stream::Shard;

mod claims;
mod commands;
mod distribution;
mod handoff_requests;
mod maintenance;
mod notifications;
mod parents;
mod renewer_events;
mod scanning;
mod schedule;
mod taking;

use claims::Claims;
use commands::Leaving;
use handoff_requests::HandoffRequests;
use schedule::Schedule;

/// The time between two walks over the held leases, for each of them. A walk takes a tenth of it or so.
const WALK: Duration = Duration::from_micros(2);

/// A shorter time is not worth a timer.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// What a pause may add to a checkpoint.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// The continuation of completed work.
type Continuation = Box<dyn FnOnce(&mut LeaseCoordinator) + Send>;

/// One member's part in the group.
pub(super) struct LeaseCoordinator {
    options: WorkerOptions,
    streams: Arc<Streams>,
    table: Table,
    renewer: LeaseRenewer,
    view: View,
    /// The owners in the whole table, including those of streams that are not read here.
    owners: BTreeSet<Arc<str>>,
    /// The keys of rows that are no leases of this group, each reported once.
    passed_over: HashSet<Arc<str>>,
    /// The last listed shards, by stream.
    shards: HashMap<Arc<str>, Vec<Shard>>,
    taking: BTreeSet<Arc<str>>,
    claims: Claims,
    requests: HandoffRequests,
    audit: Audit,
    /// The streams that distribute records themselves, as last described.
    unordered: BTreeSet<Arc<str>>,
    /// Whether the next scan is for an audit, too.
    auditing: bool,
    /// The leases of which other members must learn.
    changed: BTreeSet<Arc<str>>,
    schedule: Schedule,
    in_flight: FuturesUnordered<BoxFuture<'static, Continuation>>,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<LeaseEvent>,
    leaving: Option<Leaving>,
    /// When the table became unusable, and why.
    trouble: Option<(Instant, Error)>,
    random: fastrand::Rng,
    done: bool,
}

impl LeaseCoordinator {
    pub(super) fn new(
        options: WorkerOptions,
        bootstrap: Bootstrap,
        commands: mpsc::UnboundedReceiver<Command>,
        events: mpsc::UnboundedSender<LeaseEvent>,
    ) -> Self {
        let now = Instant::now();
        let streams = Arc::new(bootstrap.streams);
        // A change and the read of its result may both hang, and there is still time for another attempt.
        let table = Table::new(options.store.clone(), options.failover / 4);
        let renewer = LeaseRenewer::new(&options, streams.clone(), table.clone(), events.clone());
        let mut coordinator = Self {
            table,
            renewer,
            view: View::new(options.failover),
            owners: BTreeSet::new(),
            passed_over: HashSet::new(),
            shards: bootstrap.shards,
            streams,
            taking: BTreeSet::new(),
            claims: Claims::default(),
            requests: HandoffRequests::default(),
            audit: Audit::default(),
            unordered: distribution::unordered(&options.streams),
            auditing: false,
            changed: BTreeSet::new(),
            schedule: Schedule::new(&options, now),
            in_flight: FuturesUnordered::new(),
            commands,
            events,
            leaving: None,
            trouble: None,
            random: fastrand::Rng::new(),
            done: false,
            options,
        };
        coordinator.on_scanned(Ok(bootstrap.items));
        coordinator
    }

    /// Runs until the member has left, has failed, or its handle is dropped. In the last case it just
    /// stops, as after a crash.
    pub(super) async fn run(mut self) {
        let mut due = Instant::now();
        let mut next_walk = due;
        loop {
            let now = Instant::now();
            if due <= now {
                self.tick(now);
                next_walk = now + self.pause();
                due = self.due().max(next_walk);
            }
            if self.done {
                return;
            }
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Some(()) = self.renewer.next() => {}
                Some(continuation) = self.in_flight.next() => continuation(&mut self),
                () = sleep_until(due) => {}
            }
            self.on_renewer_events();
            // It may have made something else due.
            due = due.min(next_walk);
        }
    }

    /// Returns how long commands and results are only collected, so that not each of them leads to a walk over all
    /// leases. A member with few leases does not wait.
    fn pause(&self) -> Duration {
        let leases = u32::try_from(self.renewer.len()).unwrap_or(u32::MAX);
        let pause = WALK.saturating_mul(leases).min(LONGEST_PAUSE);
        match pause < SHORTEST_PAUSE {
            true => Duration::ZERO,
            false => pause,
        }
    }

    /// Does everything that is due.
    fn tick(&mut self, now: Instant) {
        self.renewer.tick(now);
        self.on_renewer_events();
        if self.leaving.is_some() {
            self.leave_if_released();
            return;
        }
        self.poll_requests(now);
        self.maintain(now);
        self.notify_if_due(now);
        if self.schedule.scan.is_some_and(|time| time <= now) {
            self.scan();
        }
        if self.schedule.decide.is_some_and(|time| time <= now) {
            self.decide(now);
        }
    }

    /// Returns when something is due next.
    fn due(&self) -> Instant {
        let held = self.renewer.due();
        let next = match self.leaving {
            Some(_) => held,
            None => held
                .into_iter()
                .chain(self.schedule.next(&self.requests))
                .min(),
        };
        next.unwrap_or_else(|| Instant::now() + self.options.failover)
    }

    fn me(&self) -> &Arc<str> {
        &self.options.id
    }

    /// Runs a future concurrently, and its continuation when it has completed.
    fn run_concurrently<L>(&mut self, work: impl Future<Output = L> + Send + 'static)
    where
        L: FnOnce(&mut Self) + Send + 'static,
    {
        let work = work.map(|continuation| Box::new(continuation) as Continuation);
        self.in_flight.push(work.boxed());
    }

    fn emit(&mut self, event: LeaseEvent) {
        // A dropped handle has closed the commands too, which ends the loop.
        let _ = self.events.send(event);
    }

    /// Ends the membership.
    fn fail(&mut self, error: Error) {
        self.done = true;
        self.emit(LeaseEvent::Failed(
            error.with_group(self.options.group.clone()),
        ));
    }

    /// Records an error of the table. A table that is gone, or no longer permitted, ends
    /// the membership when all leases have expired because of it.
    fn on_table_error(&mut self, error: &Error) {
        let lasting = matches!(
            error.kind(),
            ErrorKind::NotFound
                | ErrorKind::Denied
                | ErrorKind::Unauthenticated
                | ErrorKind::Invalid
        );
        if !lasting {
            return;
        }
        let now = Instant::now();
        if error.kind() == ErrorKind::NotFound {
            // The stream may be gone.
            self.schedule.check_now(now);
        }
        let (since, _) = self.trouble.get_or_insert_with(|| (now, error.clone()));
        if now.duration_since(*since) >= self.options.failover {
            self.fail(error.clone());
        }
        // The next scan shows whether it persists.
        let renewal = self.options.renewal_interval();
        self.schedule.scan_within(now, renewal);
    }
}
