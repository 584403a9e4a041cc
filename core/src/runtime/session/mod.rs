//! One member of a group, from its join to its leave.
//!
//! Everything that happens comes to one place, [`poll_step`](Session::poll_step), and is answered
//! there without waiting: calls to the driver that take time are futures that the session polls
//! beside the rest. So nothing that is slow (a handler, a checkpoint, a release) holds up another
//! thing.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use foldhash::fast::FixedState;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use slab::Slab;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::assignment::Assignment;
use super::attempt::{Slot, Work};
use super::board::Board;
use super::failure::FailurePath;
use crate::driver::{self, Event, Join, Membership};
use crate::runtime::options::Options;
use crate::runtime::staging::Volume;
use crate::telemetry::tell;
use crate::{Epoch, Error, ErrorKind, Exhausted, Partition, ProducerBuilder, Result};

mod dispatch;
mod events;
mod handover;
mod progress;
mod publishing;

use dispatch::Done;
use handover::Answer;
use progress::Progress;

/// How long the last calls to a driver may take when a member closes, after everything is drained.
const FAREWELL: Duration = Duration::from_secs(5);

/// How soon a checkpoint or a completion is tried again that was not stored.
const RETRY: Duration = Duration::from_millis(200);

pub(crate) struct Session<W: Work> {
    group: Arc<str>,
    options: Options,
    membership: Arc<dyn Membership>,
    work: Arc<W>,
    board: Arc<Board>,
    path: Arc<FailurePath>,

    assignments: Slab<Assignment>,
    /// Where each assignment is, with its epoch: most events and answers are checked by it alone.
    index: HashMap<Partition, (usize, Epoch), FixedState>,
    /// Assignments that may have something to start, each once.
    runnable: VecDeque<usize>,
    /// Assignments that have ended or were revoked.
    leaving: Vec<usize>,
    /// Deliveries whose handler was not ready at once.
    running: FuturesUnordered<BoxFuture<'static, Done<W>>>,
    /// Room for attempts, to be used again.
    slots: Vec<Slot<W>>,
    /// Releases and completions under way.
    answers: FuturesUnordered<BoxFuture<'static, Answer>>,
    progress: Progress,
    /// Bytes of all records that are held.
    buffered: usize,
    buffer_full: bool,
    /// Results that are not published: those of all assignments, and those under way.
    staged: Volume,

    events: BoxFuture<'static, Result<Vec<Event>>>,
    bell: BoxFuture<'static, ()>,
    shutdown: Option<BoxFuture<'static, ()>>,
    timer: Pin<Box<Sleep>>,
    /// The time of the step. One reading serves all: what is not due by it is what the timer waits
    /// for.
    now: Instant,

    /// Set when the member begins to leave: until when it may drain.
    closing: Option<Instant>,
    /// Why it leaves, if not because it was asked to.
    failure: Option<Error>,
    /// Whether the membership is of no more use: nothing can be drained or stored.
    broken: bool,
    left: bool,
}

impl<W: Work> Session<W> {
    /// Joins the group. The options were validated.
    pub(crate) async fn join(
        backend: &Arc<dyn driver::Backend>,
        group: Arc<str>,
        options: Options,
        work: W,
        board: Arc<Board>,
    ) -> Result<Self> {
        let dead_letters = match options.retry.exhausted() {
            Exhausted::DeadLetter(to) => Some(
                ProducerBuilder::new(backend.clone(), to.stream.clone())
                    .close_timeout(FAREWELL)
                    .open()
                    .await?,
            ),
            Exhausted::Stop | Exhausted::Skip => None,
        };
        let join = Join {
            streams: options.streams.clone(),
            start: options.start,
            member: options.member.clone(),
            batch_records: options.batch_records,
            drain: options.drain,
        };
        let membership = backend.consumer_group(&group).join(join).await?;
        tell!(
            info, "millstream.consumer.joined", %group, member = membership.id(), "joined"
        );
        let path = FailurePath {
            group: group.clone(),
            retry: options.retry.clone(),
            dead_letters,
            counters: board.counters.clone(),
            permits: Arc::new(Semaphore::new(options.concurrency)),
        };
        let interval = options.checkpoint_interval(work.publishes_to().is_some());
        Ok(Self {
            progress: Progress::new(interval),
            events: next_events(&membership),
            bell: next_ring(&board),
            group,
            options,
            membership,
            work: Arc::new(work),
            board,
            path: Arc::new(path),
            assignments: Slab::new(),
            index: HashMap::default(),
            runnable: VecDeque::new(),
            leaving: Vec::new(),
            running: FuturesUnordered::new(),
            slots: Vec::new(),
            answers: FuturesUnordered::new(),
            buffered: 0,
            buffer_full: false,
            staged: Volume::default(),
            shutdown: None,
            timer: Box::pin(sleep_until(Instant::now())),
            now: Instant::now(),
            closing: None,
            failure: None,
            broken: false,
            left: false,
        })
    }

    /// Runs until `shutdown` is ready or something fails for good; then drains, checkpoints and
    /// leaves.
    pub(crate) async fn run(
        mut self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        self.shutdown = Some(Box::pin(shutdown));
        self.heed_wishes();
        while !self.is_done() {
            poll_fn(|cx| self.poll_step(cx)).await;
            // A driver and a handler that are always ready would never let another task run.
            tokio::task::consume_budget().await;
        }
        self.farewell().await
    }

    /// Does what there is to do now. Ready: something has happened, there may be more.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.now = Instant::now();
        let mut happened = self.dispatch(cx);
        happened |= self.poll_events(cx);
        happened |= self.poll_done(cx);
        happened |= self.poll_wishes(cx);
        happened |= self.poll_answers(cx);
        happened |= self.poll_progress(cx);
        happened |= self.advance_leaving();
        happened |= self.poll_timer(cx);
        if happened || self.may_dispatch() || self.is_done() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn poll_events(&mut self, cx: &mut Context<'_>) -> bool {
        if self.broken {
            return false;
        }
        let Poll::Ready(events) = self.events.as_mut().poll(cx) else {
            return false;
        };
        match events {
            Ok(events) => {
                self.events = next_events(&self.membership);
                for event in events {
                    self.on_event(event);
                }
            }
            Err(error) => {
                self.broken = true;
                self.fail(error.with_group(self.group.clone()));
            }
        }
        true
    }

    fn poll_wishes(&mut self, cx: &mut Context<'_>) -> bool {
        let mut happened = false;
        if self.bell.as_mut().poll(cx).is_ready() {
            self.bell = next_ring(&self.board);
            self.heed_wishes();
            happened = true;
        }
        if self
            .shutdown
            .as_mut()
            .is_some_and(|shutdown| shutdown.as_mut().poll(cx).is_ready())
        {
            self.shutdown = None;
            self.begin_closing();
            happened = true;
        }
        happened
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let drains = self
            .leaving
            .iter()
            .filter_map(|index| self.assignments[*index].deadlines())
            .flat_map(|(drained_by, released_by)| [drained_by, released_by]);
        let farewell = self.closing.map(|deadline| deadline + FAREWELL);
        let deadlines = drains
            .chain(self.closing)
            .chain(farewell)
            .chain(self.progress.due());
        let Some(next) = deadlines.filter(|deadline| *deadline > self.now).min() else {
            return false;
        };
        if self.timer.deadline() != next {
            self.timer.as_mut().reset(next);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }

    /// Does what the user has asked for by a [`Control`](crate::Control).
    fn heed_wishes(&mut self) {
        let wishes = self.board.wishes();
        for (_, assignment) in &mut self.assignments {
            let mut paused = assignment.paused;
            paused.by_user = wishes.pauses(assignment.partition());
            assignment.pause(paused, &*self.membership);
        }
        if wishes.shutdown {
            self.begin_closing();
        }
    }

    /// Keeps the first reason to stop, and begins to leave.
    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
        self.begin_closing();
    }

    fn begin_closing(&mut self) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(Instant::now() + self.options.drain);
        for (_, assignment) in &mut self.assignments {
            assignment.window.drain();
        }
        // A drain starts what waits only for want of room for its results.
        self.queue_all();
    }

    fn is_done(&self) -> bool {
        let Some(deadline) = self.closing else {
            return false;
        };
        self.broken || self.is_handed_over() || self.now >= deadline + FAREWELL
    }

    /// Says what could not be done, and leaves.
    async fn farewell(mut self) -> Result<()> {
        let unsettled: usize = self
            .assignments
            .iter()
            .map(|(_, assignment)| assignment.window.running())
            .sum();
        self.drop_all();
        self.left = true;
        let left = timeout(FAREWELL, self.membership.leave())
            .await
            .unwrap_or_else(|_| {
                Err(
                    Error::new(ErrorKind::Timeout, "leave", "the broker does not answer")
                        .with_group(self.group.clone()),
                )
            });
        if let Some(producer) = &self.path.dead_letters {
            // What it could not send is unsettled and comes again, and it has said so in the log.
            let _ = producer.close().await;
        }
        if unsettled > 0 {
            tell!(
                warn, "millstream.consumer.unsettled", group = %self.group,
                member = self.membership.id(), unsettled,
                "closed with deliveries in flight; they come again"
            );
        }
        tell!(
            info, "millstream.consumer.closed", group = %self.group, member = self.membership.id(),
            error = self.failure.as_ref().map(tracing::field::display), "closed"
        );
        match self.failure.take() {
            Some(error) => Err(error),
            // A membership that is lost needs no leave.
            None if self.broken => Ok(()),
            None => left,
        }
    }
}

impl<W: Work> Drop for Session<W> {
    fn drop(&mut self) {
        if !self.left {
            // What is kept of its deliveries, or was started for them elsewhere, is told: others will
            // have the partitions.
            for (_, assignment) in &self.assignments {
                assignment.ownership.lost.cancel();
            }
            tell!(
                warn, "millstream.consumer.dropped", group = %self.group,
                member = self.membership.id(), in_flight = self.running.len(),
                "dropped without a shutdown; what is not checkpointed comes again after the session time-out"
            );
        }
    }
}

fn next_events(membership: &Arc<dyn Membership>) -> BoxFuture<'static, Result<Vec<Event>>> {
    let membership = membership.clone();
    Box::pin(async move { membership.next().await })
}

fn next_ring(board: &Arc<Board>) -> BoxFuture<'static, ()> {
    let board = board.clone();
    Box::pin(async move { board.rung().await })
}
