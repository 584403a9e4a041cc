//! A member at work: joined, handling, and back after a stop.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::stream::{FuturesUnordered, StreamExt};
use millstream_core::{
    BatchFailure, Consumer, ConsumerHandle, Delivery, Epoch, ErrorKind, Partition, PendingDelivery,
    Record, Result,
};
use tokio::sync::Notify;

use super::crew::{Crew, TIME_OUT};
use super::habits::Refusal;
use super::script::{LastResort, Style};
use super::world::lock;
use crate::history::{Event, Observer, Open, Outcome};

/// A place in a group: one member after the other, as each stops and comes back under a new name.
#[derive(Debug)]
pub(super) struct Seat {
    crew: Arc<Crew>,
    now: Mutex<Now>,
    /// Tells a pulling member to close without pulling the rest.
    close: Notify,
}

#[derive(Debug, Default)]
struct Now {
    observer: Option<Observer>,
    control: Option<ConsumerHandle>,
    leaving: bool,
    /// Whether something was done to this membership that may end it with an error.
    hit: bool,
}

impl Seat {
    pub(super) fn new(crew: Arc<Crew>) -> Self {
        Self {
            crew,
            now: Mutex::default(),
            close: Notify::new(),
        }
    }

    /// Works until it is asked to leave.
    pub(super) async fn work(self: Arc<Self>) {
        while !lock(&self.now).leaving {
            let name = self.crew.name();
            let observer = Observer::new(&self.crew.world.history, &self.crew.plan.name, &name);
            *lock(&self.now) = Now {
                observer: Some(observer.clone()),
                ..Now::default()
            };
            let ended = self.clone().membership(&name, observer.clone()).await;
            self.gone();
            match ended {
                Ok(()) => observer.left(),
                Err(error) if error.kind() == ErrorKind::Handler => {
                    tokio::time::sleep(TIME_OUT).await;
                }
                Err(error) if error.kind() == ErrorKind::DataLoss => {
                    self.crew.jumped(1);
                    self.crew.go_on(error.stream()).await;
                }
                Err(_) if lock(&self.now).hit => {}
                Err(error) => {
                    self.crew.world.complain(format!("{name} ended: {error:?}"));
                    return;
                }
            }
        }
    }

    async fn membership(self: Arc<Self>, name: &str, observer: Observer) -> Result<()> {
        let group = self.crew.group.clone().member(name);
        let worker = Worker {
            crew: self.crew.clone(),
            observer,
            budgets: Arc::default(),
        };
        let forever = std::future::pending();
        let run = match &self.crew.plan.style {
            Style::Each => group.run(move |delivery| worker.clone().handle(delivery), forever),
            Style::Batches(most) => group.run_batches(
                *most,
                move |deliveries| worker.clone().handle_batch(deliveries),
                forever,
            ),
            Style::Chain { .. } => {
                let chain = self.crew.chain.as_ref();
                let producer = &chain.expect("a chain has a producer").producer;
                group.transform_to(
                    producer,
                    move |delivery| worker.clone().transform(delivery),
                    forever,
                )
            }
            Style::Pull(most) => {
                let consumer = group.join().await?;
                self.controlled(consumer.handle());
                return self.pull(consumer, *most, worker).await;
            }
        };
        self.controlled(run.handle());
        run.await
    }

    fn controlled(&self, control: ConsumerHandle) {
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
                    // What waits for its next attempt, or was not pulled yet, is a hole: what is
                    // settled behind it comes again.
                    let member = worker.observer.member();
                    self.crew.fault(Some(member), "closes before everything is pulled");
                    break;
                }
                next = consumer.next(), if held.len() < most => match next? {
                    Some(delivery) => held.push(worker.clone().settle(delivery)),
                    None => break,
                },
            }
        }
        // What is held is settled while the member closes.
        let rest = async { while held.next().await.is_some() {} };
        futures_util::future::join(consumer.close(), rest).await.0
    }

    /// Asks to leave in good order.
    pub(super) fn leave(&self) {
        let mut now = lock(&self.now);
        now.leaving = true;
        let abrupt = now
            .observer
            .as_ref()
            .is_some_and(|observer| observer.member().ends_with(['1', '3', '5', '7', '9']));
        match &now.control {
            Some(_) if abrupt && matches!(self.crew.plan.style, Style::Pull(_)) => {
                self.close.notify_one();
            }
            Some(control) => control.shutdown(),
            None => {}
        }
    }

    /// Keeps what the membership has counted, when it has ended.
    pub(super) fn gone(&self) {
        if let Some(control) = lock(&self.now).control.take() {
            self.crew.jumped(control.stats().data_losses);
        }
    }

    /// Records that the member is killed.
    pub(super) fn crashed(&self) {
        let mut now = lock(&self.now);
        now.hit = true;
        if let Some(observer) = &now.observer {
            observer.crashed();
        }
    }

    /// The name of the membership that something is about to happen to. It may end with an error
    /// from now on.
    pub(super) fn hit(&self) -> Option<String> {
        let mut now = lock(&self.now);
        now.hit = true;
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
    crew: Arc<Crew>,
    observer: Observer,
    /// How many failures are left to the run of a batch handler that a partition is in.
    budgets: Arc<Mutex<BTreeMap<(Partition, Epoch), u32>>>,
}

type Answer<T> = std::result::Result<T, &'static str>;

impl Worker {
    async fn handle(self, delivery: Delivery) -> Answer<()> {
        let open = self.begin(&delivery).await;
        let last = delivery.attempt() == self.crew.plan.attempts;
        match self.crew.habits.refuses(open.id()) {
            None => {
                open.end(Outcome::Acked);
                Ok(())
            }
            Some(refusal) => {
                self.refuse(open, last);
                Err(refusal.reason())
            }
        }
    }

    async fn transform(self, delivery: Delivery) -> Answer<Option<Record>> {
        let (crew, key) = (self.crew.clone(), delivery.key().cloned());
        let chain = crew.chain.as_ref().expect("a chain has a producer");
        let id = crate::history::id_of(delivery.payload());
        let place = (delivery.partition().clone(), delivery.position());
        self.handle(delivery).await?;
        Ok(id.map(|id| chain.transform(id, place, key.as_deref())))
    }

    async fn settle(self, delivery: PendingDelivery) {
        tokio::select! {
            biased;
            () = delivery.lost() => self.observer.lost(&delivery),
            open = self.begin(&delivery) => {
                let last = delivery.attempt() == self.crew.plan.attempts;
                match self.crew.habits.refuses(open.id()) {
                    None => {
                        open.end(Outcome::Acked);
                        delivery.ack();
                    }
                    Some(refusal) => {
                        self.refuse(open, last);
                        match refusal {
                            Refusal::Error => delivery.nack("refused"),
                            // To drop it is to refuse it, too.
                            Refusal::Panic => drop(delivery),
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
        for (index, delivery) in deliveries.iter().enumerate() {
            let open = self.begin(delivery).await;
            let Some(refusal) = self.crew.habits.refuses(open.id()) else {
                open.end(Outcome::Acked);
                continue;
            };
            let last = self.spend(delivery, index);
            self.refuse(open, last);
            // A failure of the whole batch would take back what is settled already.
            if index > 0 || open_ended(delivery) {
                return Err(BatchFailure::at(index, "refused"));
            }
            if last && self.crew.plan.last_resort != LastResort::Stop {
                for delivery in &deliveries[1..] {
                    self.refuse(self.observer.begin(delivery), true);
                }
            }
            return Err(refusal.reason().into());
        }
        Ok(())
    }

    /// Counts a failure at `index` of a batch as the runtime does, and answers whether it was the
    /// last that is allowed.
    fn spend(&self, delivery: &Delivery, index: usize) -> bool {
        let mut budgets = lock(&self.budgets);
        let run = (delivery.partition().clone(), delivery.epoch());
        let attempts = self.crew.plan.attempts;
        let left = budgets.entry(run).or_insert(attempts);
        if index > 0 || delivery.attempt() == 1 {
            *left = attempts;
        }
        *left -= 1;
        let last = *left == 0;
        if last {
            *left = attempts;
        }
        last
    }

    async fn begin(&self, delivery: &Delivery) -> Open {
        let open = self.observer.begin(delivery);
        let pause = self.crew.habits.pause(open.id(), delivery.attempt());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        open
    }

    fn refuse(&self, open: Open, last: bool) {
        let id = open.id();
        match (last, self.crew.plan.last_resort) {
            (false, _) => open.end(Outcome::Failed),
            (true, LastResort::DeadLetter) => open.end(Outcome::GaveUp),
            (true, LastResort::Skip) => {
                open.end(Outcome::GaveUp);
                self.crew.world.record(Event::Skipped {
                    group: self.crew.plan.name.as_str().into(),
                    id,
                });
            }
            (true, LastResort::Stop) => {
                // It leaves a hole in what is settled, so that records behind it come again.
                self.crew.fault(Some(self.observer.member()), "stops");
                open.end(Outcome::Failed);
            }
        }
    }
}

/// Whether a failure at the beginning of a batch is told as one of this delivery alone.
fn open_ended(delivery: &Delivery) -> bool {
    delivery.payload().len() % 2 == 0
}
