//! A member slot of a group: successive memberships with their handlers.

use std::sync::{Arc, Mutex};

use futures_util::stream::{FuturesUnordered, StreamExt};
use millstream_core::{
    BatchFailure, Consumer, ConsumerHandle, Delivery, ErrorKind, Failure, PendingDelivery, Record,
    Result,
};
use tokio::sync::Notify;

use super::behavior::InjectedFailure;
use super::refusing_backend::REFUSED;
use super::script::{FinalAction, Style};
use super::sim_group::{RESTART_DELAY, SimGroup};
use super::world::lock;
use crate::history::{BegunHandling, Event, Observer, Outcome, id_of_delivery};

/// A slot in a group. Each time its member stops, another one joins under a new name.
#[derive(Debug)]
pub(super) struct MemberSlot {
    sim_group: Arc<SimGroup>,
    now: Mutex<Now>,
    /// Makes a pulling member close without pulling the remaining records.
    close: Notify,
}

#[derive(Debug, Default)]
struct Now {
    observer: Option<Observer>,
    control: Option<ConsumerHandle>,
    leaving: bool,
    /// Whether a fault of this membership may end it with an error.
    faulted: bool,
}

impl MemberSlot {
    pub(super) fn new(sim_group: Arc<SimGroup>) -> Self {
        Self {
            sim_group,
            now: Mutex::default(),
            close: Notify::new(),
        }
    }

    /// Runs memberships until it is asked to leave.
    pub(super) async fn run(self: Arc<Self>) {
        while !lock(&self.now).leaving {
            let name = self.sim_group.name();
            let observer = Observer::new(
                &self.sim_group.world.history,
                &self.sim_group.plan.name,
                &name,
            )
            .with_incarnations(&self.sim_group.world.incarnations);
            let live = self.sim_group.memberships.begin(&name);
            let deletions = self.sim_group.deletions();
            *lock(&self.now) = Now {
                observer: Some(observer.clone()),
                ..Now::default()
            };
            let ended = self.clone().membership(&name, observer.clone()).await;
            self.gone();
            drop(live);
            match ended {
                Ok(()) => observer.left(),
                Err(error) if error.kind() == ErrorKind::Handler => {
                    tokio::time::sleep(RESTART_DELAY).await;
                }
                Err(error) if error.kind() == ErrorKind::DataLoss => {
                    self.sim_group.add_data_losses(1);
                    self.sim_group.reset_after_data_loss(error.stream()).await;
                }
                Err(_) if lock(&self.now).faulted => {}
                // Sends may fail for longer than its drain.
                Err(error)
                    if error.kind() == ErrorKind::Timeout
                        && !self.sim_group.plan.drains_fully() => {}
                Err(error)
                    if error.kind() == ErrorKind::NotFound
                        && error.stream().is_some_and(|stream| {
                            self.sim_group.is_deleted_since(stream, &deletions)
                        }) =>
                {
                    tokio::time::sleep(RESTART_DELAY).await;
                }
                Err(error) => {
                    self.sim_group
                        .world
                        .report_problem(format!("{name} ended: {error:?}"));
                    return;
                }
            }
        }
    }

    async fn membership(self: Arc<Self>, name: &str, observer: Observer) -> Result<()> {
        let group = self.sim_group.group.clone().member(name);
        let worker = Worker {
            sim_group: self.sim_group.clone(),
            observer,
        };
        let forever = std::future::pending();
        let run = match &self.sim_group.plan.style {
            Style::Each => group.run(move |delivery| worker.clone().handle(delivery), forever),
            Style::Batches(most) => group.run_batches(
                *most,
                move |deliveries| worker.clone().handle_batch(deliveries),
                forever,
            ),
            Style::Pipeline { .. } => {
                let pipeline = self.sim_group.pipeline.as_ref();
                let producer = &pipeline.expect("a pipeline has a producer").producer;
                group.transform_to(
                    producer,
                    move |delivery| worker.clone().transform(delivery),
                    forever,
                )
            }
            Style::Pull(most) => {
                let consumer = group.join().await?;
                self.set_handle(consumer.handle());
                return self.pull(consumer, *most, worker).await;
            }
        };
        self.set_handle(run.handle());
        run.await
    }

    fn set_handle(&self, control: ConsumerHandle) {
        let mut now = lock(&self.now);
        if now.leaving {
            control.shutdown();
        }
        now.control = Some(control);
    }

    async fn pull(&self, mut consumer: Consumer, most: usize, worker: Worker) -> Result<()> {
        let mut held = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = held.next() => {}
                () = self.close.notified() => {
                    // A record that waits for its next attempt, or was not pulled yet, is a gap: records
                    // that are settled after it are delivered again.
                    let member = worker.observer.member();
                    self.sim_group.fault(Some(member), "closes before everything is pulled");
                    break;
                }
                next = consumer.next(), if held.len() < most => match next? {
                    Some(delivery) => held.push(worker.clone().settle(delivery)),
                    None => break,
                },
            }
        }
        // The held records are settled while the member closes.
        let rest = async { while held.next().await.is_some() {} };
        futures_util::future::join(consumer.close(), rest).await.0
    }

    /// Makes it leave cleanly.
    pub(super) fn leave(&self) {
        let mut now = lock(&self.now);
        now.leaving = true;
        let abrupt = now
            .observer
            .as_ref()
            .is_some_and(|observer| observer.member().ends_with(['1', '3', '5', '7', '9']));
        match &now.control {
            Some(_) if abrupt && matches!(self.sim_group.plan.style, Style::Pull(_)) => {
                self.close.notify_one();
            }
            Some(control) => control.shutdown(),
            None => {}
        }
    }

    /// Adds the counters of the membership, when it has ended.
    pub(super) fn gone(&self) {
        if let Some(control) = lock(&self.now).control.take() {
            self.sim_group.add_stats(&control.stats());
        }
    }

    /// Records that the member is killed.
    pub(super) fn crashed(&self) {
        let mut now = lock(&self.now);
        now.faulted = true;
        if let Some(observer) = &now.observer {
            observer.crashed();
        }
    }

    /// Marks the membership as faulted, so that it may end with an error from now on. Returns its name.
    pub(super) fn mark_faulted(&self) -> Option<String> {
        let mut now = lock(&self.now);
        now.faulted = true;
        now.observer
            .as_ref()
            .map(|observer| observer.member().to_owned())
    }

    pub(super) fn handle(&self) -> Option<ConsumerHandle> {
        lock(&self.now).control.clone()
    }
}

/// The handlers of one membership.
#[derive(Debug, Clone)]
struct Worker {
    sim_group: Arc<SimGroup>,
    observer: Observer,
}

type HandlerResult<T> = std::result::Result<T, Failure>;

impl Worker {
    async fn handle(self, delivery: Delivery) -> HandlerResult<()> {
        self.handle_with(&delivery, || false).await
    }

    /// Handles a delivery whose result will be rejected, if `is_refused` returns so.
    async fn handle_with(
        &self,
        delivery: &Delivery,
        is_refused: impl FnOnce() -> bool,
    ) -> HandlerResult<()> {
        let open = self.begin(delivery).await;
        match self.sim_group.behavior.failure_of(open.id()) {
            None => {
                if is_refused() {
                    self.give_up_result(open);
                } else {
                    open.end(Outcome::Acked);
                }
                Ok(())
            }
            Some(failure) => {
                self.refuse(open, self.is_last(delivery, failure));
                Err(failure.into_failure())
            }
        }
    }

    /// Ends the handling of a record whose result will be rejected. A record at which the consumer stops is
    /// delivered again, and its result is stored then.
    fn give_up_result(&self, open: BegunHandling) {
        if self.sim_group.plan.final_action == FinalAction::Stop {
            self.sim_group
                .fault(Some(self.observer.member()), "stops at a result");
            open.end(Outcome::Acked);
        } else {
            self.refuse(open, true);
        }
    }

    async fn transform(self, delivery: Delivery) -> HandlerResult<Option<Record>> {
        let sim_group = self.sim_group.clone();
        let pipeline = sim_group
            .pipeline
            .as_ref()
            .expect("a pipeline has a producer");
        let once = sim_group.plan.final_action == FinalAction::Stop;
        let mut refused = None;
        let is_refused = || {
            let id = id_of_delivery(&delivery);
            refused = id.and_then(|id| sim_group.behavior.refuses_result(id, once));
            refused.is_some()
        };
        self.handle_with(&delivery, is_refused).await?;
        let result = id_of_delivery(&delivery).map(|id| pipeline.transform(id, &delivery));
        Ok(result.map(|record| match refused {
            Some(kind) => record.header(REFUSED, kind),
            None => record,
        }))
    }

    async fn settle(self, delivery: PendingDelivery) {
        tokio::select! {
            biased;
            () = delivery.lost() => self.observer.lost(&delivery),
            open = self.begin(&delivery) => {
                match self.sim_group.behavior.failure_of(open.id()) {
                    None => {
                        open.end(Outcome::Acked);
                        delivery.ack();
                    }
                    Some(failure) => {
                        self.refuse(open, self.is_last(&delivery, failure));
                        match failure {
                            // Dropping the delivery fails it, too.
                            InjectedFailure::Panic => drop(delivery),
                            failure => delivery.nack(failure.into_failure()),
                        }
                    }
                }
            }
        }
    }

    async fn handle_batch(
        self,
        deliveries: Vec<Delivery>,
    ) -> std::result::Result<(), BatchFailure> {
        if let Some(failure) = self.refuses_unseen(&deliveries) {
            return Err(failure.into_failure().into());
        }
        for (index, delivery) in deliveries.iter().enumerate() {
            let open = self.begin(delivery).await;
            let Some(failure) = self.sim_group.behavior.failure_of(open.id()) else {
                open.end(Outcome::Acked);
                continue;
            };
            // A failure of the whole batch would also fail the records that are already settled.
            let named = index > 0 || fails_as_single(delivery);
            // A failure that names no delivery is bisected before anything is given up.
            let alone = named || deliveries.len() == 1;
            self.refuse(open, alone && self.is_last(delivery, failure));
            if named {
                return Err(BatchFailure::at(index, failure.into_named()));
            }
            return Err(failure.into_failure().into());
        }
        Ok(())
    }

    /// Returns whether a batch fails as a whole before any of it is handled, because of a
    /// record that is not its first one.
    fn refuses_unseen(&self, deliveries: &[Delivery]) -> Option<InjectedFailure> {
        let behavior = &self.sim_group.behavior;
        let fails = |delivery: &&Delivery| {
            let id = id_of_delivery(delivery);
            id.is_some_and(|id| behavior.will_fail(id))
        };
        let (index, bad) = deliveries.iter().enumerate().find(|(_, d)| fails(d))?;
        match index == 0 || fails_as_single(bad) {
            true => None,
            false => behavior.failure_of(id_of_delivery(bad)?),
        }
    }

    /// Returns whether the policy gives up on a record after this failure.
    fn is_last(&self, delivery: &Delivery, failure: InjectedFailure) -> bool {
        match failure {
            InjectedFailure::Permanent => true,
            InjectedFailure::Unavailable => false,
            InjectedFailure::Plain | InjectedFailure::Panic | InjectedFailure::RetryAfter(_) => {
                delivery.attempt() >= self.sim_group.plan.attempts
            }
        }
    }

    async fn begin(&self, delivery: &Delivery) -> BegunHandling {
        let open = self.observer.begin(delivery);
        let pause = self.sim_group.behavior.pause(open.id(), delivery);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        open
    }

    fn refuse(&self, open: BegunHandling, last: bool) {
        let id = open.id();
        match (last, self.sim_group.plan.final_action) {
            (false, _) => open.end(Outcome::Failed),
            (true, FinalAction::DeadLetter) => open.end(Outcome::GaveUp),
            (true, FinalAction::Skip) => {
                open.end(Outcome::GaveUp);
                self.sim_group.world.record(Event::Skipped {
                    group: self.sim_group.plan.name.as_str().into(),
                    id,
                });
            }
            (true, FinalAction::Stop) => {
                // It leaves a gap in the settled records, so that records after it are delivered again.
                self.sim_group.fault(Some(self.observer.member()), "stops");
                open.end(Outcome::Failed);
            }
        }
    }
}

/// Returns whether a failure at the beginning of a batch is reported as a failure of this delivery alone.
fn fails_as_single(delivery: &Delivery) -> bool {
    id_of_delivery(delivery).is_some_and(|id| id % 2 == 0)
}
