use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use millstream_core::{ConsumerGroup, ConsumerHandle, Delivery, Epoch, Partition, Result};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::joined;
use crate::harness::{Timing, eventually_or};
use crate::history::{Event, History, Observer, Outcome};

/// A handler of deliveries.
pub type HandlerFn = Arc<dyn Fn(Delivery) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// The reason why a handler failed.
pub type Failure = Box<dyn StdError + Send + Sync>;

/// Creates a handler from an async function.
pub fn handler_fn<F>(handler: impl Fn(Delivery) -> F + Send + Sync + 'static) -> HandlerFn
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    Arc::new(move |delivery| handler(delivery).boxed())
}

/// The options of a member to start.
pub struct MemberSpec<'a> {
    group: BoxFuture<'a, ConsumerGroup>,
    history: History,
    name: String,
    handler: HandlerFn,
    options: Vec<Configure<'a>>,
    exhaustion: Exhaustion,
}

type Configure<'a> = Box<dyn FnOnce(ConsumerGroup) -> ConsumerGroup + Send + 'a>;

/// The effect of the failure policy when the attempts are used up.
#[derive(Debug, Clone, Copy)]
enum Exhaustion {
    /// The member stops: the record is delivered again.
    Stops,
    DeadLetters(u32),
    Skips(u32),
}

impl fmt::Debug for MemberSpec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemberSpec")
            .field("name", &self.name)
            .field("exhaustion", &self.exhaustion)
            .finish_non_exhaustive()
    }
}

impl<'a> MemberSpec<'a> {
    /// Creates a member of a group, with its own connection, that is recorded in `history`.
    /// [`Fleet::member`](super::Fleet::member) creates a member of a fleet of one process.
    pub fn new(
        group: impl Future<Output = ConsumerGroup> + Send + 'a,
        history: &History,
        name: &str,
    ) -> Self {
        Self {
            group: group.boxed(),
            history: history.clone(),
            name: name.into(),
            handler: handler_fn(|_| async { Ok(()) }),
            options: Vec::new(),
            exhaustion: Exhaustion::Stops,
        }
    }

    /// Sets the handler. Default: ready at once with `Ok`.
    #[must_use]
    pub fn handler(mut self, handler: HandlerFn) -> Self {
        self.handler = handler;
        self
    }

    /// Sets how long each handling takes.
    #[must_use]
    pub fn handler_delay(self, duration: Duration) -> Self {
        self.handler(handler_fn(move |_| async move {
            tokio::time::sleep(duration).await;
            Ok(())
        }))
    }

    /// Changes the group's options.
    #[must_use]
    pub fn with(
        mut self,
        configure: impl FnOnce(ConsumerGroup) -> ConsumerGroup + Send + 'a,
    ) -> Self {
        self.options.push(Box::new(configure));
        self
    }

    /// Declares that the policy dead-letters after this many attempts.
    #[must_use]
    pub fn dead_letters_after(mut self, attempts: u32) -> Self {
        self.exhaustion = Exhaustion::DeadLetters(attempts);
        self
    }

    /// Declares that the policy skips after this many attempts.
    #[must_use]
    pub fn skips_after(mut self, attempts: u32) -> Self {
        self.exhaustion = Exhaustion::Skips(attempts);
        self
    }

    /// Starts the member as a task.
    pub async fn start(self) -> Member {
        let Self {
            group,
            history,
            name,
            handler,
            options,
            exhaustion,
        } = self;
        let group = group.await.member(name.as_str());
        let group = options
            .into_iter()
            .fold(group, |group, option| option(group));
        let watchers = Arc::new(Watchers::default());
        let observed = Arc::new(Observed {
            observer: Observer::new(&history, group.name(), &name),
            history,
            group: group.name().into(),
            watchers: watchers.clone(),
            handler,
            exhaustion,
        });
        let observer = observed.observer.clone();
        let (shutdown, asked) = oneshot::channel::<()>();
        let run = group.run(
            move |delivery| observed.clone().handle(delivery),
            async move {
                // A member whose sender was forgotten continues.
                if asked.await.is_err() {
                    std::future::pending::<()>().await;
                }
            },
        );
        Member {
            control: run.handle(),
            task: tokio::spawn(run),
            observer,
            shutdown,
            watchers,
        }
    }
}

struct Observed {
    observer: Observer,
    history: History,
    group: Arc<str>,
    watchers: Arc<Watchers>,
    handler: HandlerFn,
    exhaustion: Exhaustion,
}

impl Observed {
    async fn handle(self: Arc<Self>, delivery: Delivery) -> Result<(), Failure> {
        self.watchers.watch(&self.observer, &delivery);
        let attempt = delivery.attempt();
        let open = self.observer.begin(&delivery);
        let result = (self.handler)(delivery).await;
        let group = self.group.clone();
        match (&result, self.exhaustion) {
            (Ok(()), _) => open.end(Outcome::Acked),
            (Err(_), Exhaustion::DeadLetters(attempts)) if attempt >= attempts => {
                open.end(Outcome::GaveUp);
            }
            (Err(_), Exhaustion::Skips(attempts)) if attempt >= attempts => {
                let id = open.id();
                open.end(Outcome::GaveUp);
                self.history.record(Event::Skipped { group, id });
            }
            (Err(_), _) => open.end(Outcome::Failed),
        }
        result
    }
}

/// For each ownership, a task that records its loss.
#[derive(Debug, Default)]
struct Watchers(Mutex<BTreeMap<(Partition, Epoch), AbortHandle>>);

impl Watchers {
    fn watch(&self, observer: &Observer, delivery: &Delivery) {
        let mut watchers = self.0.lock().expect("nothing panics while it holds this");
        let ownership = (delivery.partition().clone(), delivery.epoch());
        watchers.entry(ownership).or_insert_with(|| {
            let (observer, delivery) = (observer.clone(), delivery.clone());
            let watch = async move {
                delivery.lost().await;
                observer.lost(&delivery);
            };
            tokio::spawn(watch).abort_handle()
        });
    }

    fn end(&self) {
        let watchers = self.0.lock().expect("nothing panics while it holds this");
        watchers.values().for_each(AbortHandle::abort);
    }
}

/// A running member. Dropping it leaves it running, unobserved.
#[derive(Debug)]
#[must_use = "close or crash it"]
pub struct Member {
    control: ConsumerHandle,
    observer: Observer,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
    watchers: Arc<Watchers>,
}

impl Member {
    /// Returns its handle.
    pub fn handle(&self) -> &ConsumerHandle {
        &self.control
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        self.observer.member()
    }

    /// Returns the number of partitions that it owns.
    pub fn owns(&self) -> usize {
        self.control.partitions().len()
    }

    /// Returns whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Shuts it down cleanly; returns how long that took.
    pub async fn close(self) -> Duration {
        let began = Instant::now();
        let name = self.name().to_owned();
        let (_, result) = self.shut_down().await;
        result.unwrap_or_else(|error| panic!("{name} did not close cleanly: {error:?}"));
        began.elapsed()
    }

    /// Shuts it down, and returns its result.
    pub async fn shut_down(self) -> (ConsumerHandle, Result<()>) {
        // It may have ended already.
        let _ = self.shutdown.send(());
        let result = joined(self.task).await;
        self.watchers.end();
        if result.is_ok() {
            self.observer.left();
        }
        (self.control, result)
    }

    /// Waits until it ends by itself, and returns its result.
    ///
    /// # Panics
    /// If it has not ended after the harness's timeout.
    #[track_caller]
    pub fn ended(self, timing: Timing) -> impl Future<Output = Result<()>> {
        let what = format!("{} ends by itself", self.name());
        let caller = Location::caller();
        async move {
            let ended = async || self.task.is_finished().then_some(());
            let owned = || format!("it owns {:#?}", self.control.partitions());
            eventually_or(caller, timing, &what, ended, owned).await;
            self.watchers.end();
            drop(self.shutdown);
            joined(self.task).await
        }
    }

    /// Drops it without a shutdown, like the end of its process.
    pub async fn crash(self) {
        self.observer.crashed();
        self.task.abort();
        // Aborted, or ended by itself before.
        let _ = self.task.await;
        self.watchers.end();
    }
}
