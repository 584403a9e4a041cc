//! One member of a group, from its join to its leave.
//!
//! [`poll_step`](Member::poll_step) does all the work and never waits. Calls to the driver are
//! futures that the member polls concurrently, so a slow handler, checkpoint or release delays
//! nothing else.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use foldhash::fast::FixedState;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use slab::Slab;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::assignment::{Assignment, Paused, RecordMemory};
use super::bisection::Bisection;
use super::buffer_budget::BufferBudget;
use super::control_state::ControlState;
use super::dead_letter_sink::DeadLetterSink;
use super::due_queue::DueQueue;
use super::error_handler::ErrorHandler;
use super::guarded::Guarded;
use super::handler::{Handler, ReusableFuture, Settlement};
use crate::consumer::options::ConsumerOptions;
use crate::consumer::runtime::output_buffer::Size;
use crate::driver::{self, Event, JoinOptions, Membership};
use crate::telemetry::{Causes, event};
use crate::{Epoch, Error, ErrorKind, Partition, Result};

mod checkpointing;
mod completion;
mod dispatch;
mod events;
mod in_flight;
mod liveness;
mod outstanding;
mod rebalance;
mod refusal;
mod transaction;
mod visits;

#[cfg(test)]
mod tests;

use checkpointing::Checkpointer;
use in_flight::InFlight;
use rebalance::{Departures, ReleaseResult};

/// How long the last calls to a driver may take when a member closes, after everything is drained.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The minimum time for the leave, if the calls before it have used up theirs.
const MIN_LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// How many full fetches fill the buffer of a member.
const BATCHES_PER_BUFFER: usize = 16;

/// The delay before a checkpoint or completion that was not stored is retried.
const RETRY: Duration = Duration::from_millis(200);

pub(crate) struct Member<W: Handler> {
    group: Arc<str>,
    options: ConsumerOptions,
    membership: Arc<dyn Membership>,
    handler: Arc<W>,
    control: Arc<ControlState>,
    errors: Arc<ErrorHandler>,

    /// Boxed, so that they do not move and the slab's spare room stays small.
    assignments: Slab<Box<Assignment>>,
    /// The index and epoch of each assignment: enough to check most events and results.
    index: HashMap<Partition, (usize, Epoch), FixedState>,
    /// Assignments that may have records to start, each once.
    runnable: VecDeque<usize>,
    departures: Departures,
    /// Attempts that were not ready at once, unless they are settled from outside, and dead letters that
    /// are being stored.
    running: FuturesUnordered<InFlight<W>>,
    /// How many attempts are in flight, in `running` or settled from outside.
    attempts: usize,
    /// The serial number of the last attempt.
    last_serial: u64,
    /// Settlements from outside that are not handled yet.
    settlements: VecDeque<Settlement>,
    /// When attempts that are settled from outside exceed their time.
    expiries: DueQueue,
    /// The runs that wait for their next attempt.
    retries: DueQueue,
    /// When incomplete batches are due, with the index of their assignment.
    batches_due: BTreeSet<(Instant, usize)>,
    /// Memory for records, to be reused.
    record_memory: RecordMemory,
    /// Memory for the futures of attempts, to be reused.
    spare_futures: Vec<ReusableFuture<W>>,
    /// Releases and completions in flight.
    releases: FuturesUnordered<BoxFuture<'static, ReleaseResult>>,
    checkpointer: Checkpointer,
    budget: BufferBudget,
    /// Whether some partitions may be paused because the budget is used up.
    buffer_full: bool,
    /// Unpublished output of all assignments and of the transaction in flight.
    buffered_output: Size,
    /// The parts of refused transactions that are left to be published.
    bisection: Bisection,

    /// When the partitions are checked for stalls again.
    check_at: Instant,
    /// Whether the end of a reported stall must still be reported.
    stall_reported: bool,

    events: BoxFuture<'static, Result<Vec<Event>>>,
    control_changed: BoxFuture<'static, ()>,
    shutdown: Option<BoxFuture<'static, ()>>,
    timer: Pin<Box<Sleep>>,
    /// The time of the step, read once. The timer waits for everything that is not due by it.
    now: Instant,
    /// Whether the step has used up its time.
    burst_over: bool,

    /// Set when the member begins to leave: the end of its drain.
    closing: Option<Instant>,
    /// The error that made it leave. `None` if it leaves on request.
    failure: Option<Error>,
    /// Whether the membership has ended: nothing can be drained or stored any more.
    membership_lost: bool,
    left: bool,
}

impl<W: Handler> Member<W> {
    /// Joins the group. The options were validated.
    pub(crate) async fn join(
        backend: &Arc<dyn driver::Backend>,
        group: Arc<str>,
        options: ConsumerOptions,
        handler: W,
        dead_letters: Option<Arc<dyn DeadLetterSink>>,
        control: Arc<ControlState>,
    ) -> Result<Self> {
        let join = JoinOptions {
            streams: options.streams.clone(),
            start: options.start,
            member: options.member.clone(),
            batch_records: options
                .max_poll_records
                .min(options.max_unsettled_per_partition),
            batch_bytes: (options.buffer_bytes / BATCHES_PER_BUFFER).max(1),
            buffer_bytes: options.buffer_bytes,
            drain: options.drain_timeout,
            required: options.required.clone(),
            filtered: control.counters.filtered.clone(),
        };
        let membership = backend.consumer_group(&group).join(join).await?;
        let membership: Arc<dyn Membership> = Arc::new(Guarded::new(membership));
        event!(
            info, "millstream.consumer.joined", %group, member = membership.id(), "joined"
        );
        let errors = ErrorHandler {
            group: group.clone(),
            retry: options.retry.clone(),
            dead_letters,
            counters: control.counters.clone(),
        };
        let interval = options.checkpoint_interval(handler.output_stream().is_some());
        Ok(Self {
            checkpointer: Checkpointer::new(interval),
            events: next_events(&membership),
            control_changed: next_control_change(&control),
            group,
            budget: BufferBudget::new(options.buffer_bytes),
            options,
            membership,
            handler: Arc::new(handler),
            control,
            errors: Arc::new(errors),
            assignments: Slab::new(),
            index: HashMap::default(),
            runnable: VecDeque::new(),
            departures: Departures::default(),
            running: FuturesUnordered::new(),
            attempts: 0,
            last_serial: 0,
            settlements: VecDeque::new(),
            expiries: DueQueue::default(),
            retries: DueQueue::default(),
            batches_due: BTreeSet::new(),
            record_memory: RecordMemory::default(),
            spare_futures: Vec::new(),
            releases: FuturesUnordered::new(),
            buffer_full: false,
            buffered_output: Size::default(),
            bisection: Bisection::default(),
            check_at: Instant::now(),
            stall_reported: false,
            shutdown: None,
            timer: Box::pin(sleep_until(Instant::now())),
            now: Instant::now(),
            burst_over: false,
            closing: None,
            failure: None,
            membership_lost: false,
            left: false,
        })
    }

    /// Runs until `shutdown` is ready or something fails permanently; then drains, checkpoints and
    /// leaves.
    pub(crate) async fn run(
        mut self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        self.shutdown = Some(Box::pin(shutdown));
        self.apply_control_requests();
        while !self.is_done() {
            poll_fn(|cx| self.poll_step(cx)).await;
            // A driver and a handler that are always ready would starve other tasks. The budget of
            // tokio counts steps, however long they are.
            match std::mem::take(&mut self.burst_over) {
                true => tokio::task::yield_now().await,
                false => tokio::task::consume_budget().await,
            }
        }
        self.leave().await
    }

    /// Does one step. Returns `Ready` if something has happened, so that there may be more to do.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.now = Instant::now();
        let mut happened = self.start_due_batches();
        // They are polled first, since each makes room for another attempt.
        happened |= self.poll_completed(cx);
        happened |= self.poll_settlements(cx);
        happened |= self.dispatch(cx);
        happened |= self.poll_events(cx);
        happened |= self.poll_control(cx);
        happened |= self.poll_releases(cx);
        happened |= self.poll_checkpoint(cx);
        happened |= self.advance_releases();
        happened |= self.check_progress();
        happened |= self.poll_timer(cx);
        if happened || self.may_dispatch() || self.is_done() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn poll_events(&mut self, cx: &mut Context<'_>) -> bool {
        if self.membership_lost {
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
                self.membership_lost = true;
                self.fail(error.with_group(self.group.clone()));
            }
        }
        true
    }

    fn poll_control(&mut self, cx: &mut Context<'_>) -> bool {
        let mut happened = false;
        if self.control_changed.as_mut().poll(cx).is_ready() {
            self.control_changed = next_control_change(&self.control);
            self.apply_control_requests();
            happened = true;
        }
        if self
            .shutdown
            .as_mut()
            .is_some_and(|shutdown| shutdown.as_mut().poll(cx).is_ready())
        {
            self.shutdown = None;
            self.begin_shutdown();
            happened = true;
        }
        happened
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let leave_by = self.closing.map(|deadline| deadline + LEAVE_TIMEOUT);
        let deadlines = [
            self.departures.next_deadline(),
            self.retries.next_due(),
            self.expiries.next_due(),
            self.batches_due.first().map(|(due, _)| *due),
            self.next_check(),
            self.closing,
            leave_by,
            self.checkpointer.due(),
        ];
        let deadlines = deadlines.into_iter().flatten();
        let Some(next) = deadlines.filter(|deadline| *deadline > self.now).min() else {
            return false;
        };
        if self.timer.deadline() != next {
            self.timer.as_mut().reset(next);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }

    /// Applies the requests of [`ConsumerHandle`](crate::ConsumerHandle)s.
    fn apply_control_requests(&mut self) {
        let requests = self.control.requests();
        for index in self.indexes() {
            let assignment = &mut self.assignments[index];
            let mut paused = assignment.paused;
            paused.by_user = requests.pauses(assignment.partition());
            if paused.by_user != assignment.paused.by_user {
                assignment.pause(paused, &*self.membership);
                self.report_user_pause(&self.assignments[index]);
            }
        }
        if requests.shutdown {
            self.begin_shutdown();
        }
    }

    fn indexes(&self) -> Vec<usize> {
        let indexes = self.assignments.iter().inspect(|_| visits::visited());
        indexes.map(|(index, _)| index).collect()
    }

    /// Begins to leave. The first reason to stop is kept.
    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
        self.begin_shutdown();
    }

    fn begin_shutdown(&mut self) {
        if self.closing.is_some() {
            return;
        }
        let deadline = Instant::now() + self.options.drain_timeout;
        self.closing = Some(deadline);
        let is_closed = self.handler.is_closed();
        for index in self.indexes() {
            let assignment = &mut self.assignments[index];
            assignment.drain(deadline);
            assignment.pause(
                Paused {
                    by_shutdown: true,
                    ..assignment.paused
                },
                &*self.membership,
            );
            match is_closed {
                true => self.abandon_retries(index),
                false => self.abandon_late_retries(index),
            }
        }
        // A drain also starts records that waited for room for their output.
        self.mark_all_runnable();
    }

    fn is_done(&self) -> bool {
        let Some(deadline) = self.closing else {
            return false;
        };
        self.membership_lost || self.is_handed_over() || self.now >= deadline + LEAVE_TIMEOUT
    }

    /// Reports records that are left unsettled, and leaves the group.
    async fn leave(mut self) -> Result<()> {
        for (_, assignment) in &self.assignments {
            self.report_unsettled(assignment);
        }
        if let Some(error) = self.unstored_progress() {
            self.failure.get_or_insert(error);
        }
        self.clear();
        self.left = true;
        let now = Instant::now();
        let leave_by = self
            .closing
            .map_or(now, |deadline| deadline + LEAVE_TIMEOUT)
            .clamp(now + MIN_LEAVE_TIMEOUT, now + LEAVE_TIMEOUT);
        let close = async {
            if let Some(sink) = &self.errors.dead_letters {
                // Records whose letters were not stored are unsettled and are delivered again.
                let _ = timeout_at(leave_by, sink.close()).await;
            }
        };
        let (left, ()) = tokio::join!(timeout_at(leave_by, self.membership.leave()), close);
        let left = left.unwrap_or_else(|_| {
            Err(
                Error::new(ErrorKind::Timeout, "leave", "the broker does not respond")
                    .with_group(self.group.clone()),
            )
        });
        event!(
            info, "millstream.consumer.closed", group = %self.group, member = self.membership.id(),
            abandoned = self.control.counters.abandoned.get(),
            error = self.failure.as_ref().map(|error| tracing::field::display(Causes(error))), "closed"
        );
        match self.failure.take() {
            Some(error) => Err(error),
            // A lost membership does not have to leave.
            None if self.membership_lost => Ok(()),
            None => left,
        }
    }

    /// Returns the error of a close with settled records whose checkpoint is not stored.
    fn unstored_progress(&mut self) -> Option<Error> {
        // The next owner of a lost partition delivers its records again, and that was reported.
        if self.membership_lost {
            return None;
        }
        let mut unstored = self
            .assignments
            .iter()
            .filter_map(|(_, it)| it.next_update());
        let first = unstored.next()?;
        let message = match unstored.count() {
            0 => "the checkpoint was not stored before the drain timeout: settled records are \
                  delivered again"
                .to_owned(),
            others => format!(
                "the checkpoints of this partition and {others} others were not stored before the \
                 drain timeout: settled records are delivered again"
            ),
        };
        let error = Error::new(ErrorKind::Timeout, "checkpoint", message)
            .with_partition(&first.partition)
            .with_group(self.group.clone());
        Some(match self.checkpointer.take_last_error() {
            Some(source) => error.with_source(source),
            None => error,
        })
    }
}

impl<W: Handler> Drop for Member<W> {
    fn drop(&mut self) {
        if !self.left {
            // Deliveries that the application still holds report the loss.
            for (_, assignment) in &self.assignments {
                assignment.ownership.mark_lost();
            }
            event!(
                warn, "millstream.consumer.dropped", group = %self.group,
                member = self.membership.id(), in_flight = self.under_way(),
                "dropped without a shutdown; what is not checkpointed is delivered again after the \
                 session timeout"
            );
        }
    }
}

fn next_events(membership: &Arc<dyn Membership>) -> BoxFuture<'static, Result<Vec<Event>>> {
    let membership = membership.clone();
    Box::pin(async move { membership.next().await })
}

fn next_control_change(control: &Arc<ControlState>) -> BoxFuture<'static, ()> {
    let control = control.clone();
    Box::pin(async move { control.changed().await })
}
