use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use async_trait::async_trait;
use millstream_core::{Client, Guarantees, Partition, StreamSpec, driver};
use tokio::time::Instant;

use crate::TcpProxy;

/// Provides a broker for the suite, and a way to inject faults into it.
///
/// # Contract
/// All clients of one harness use the same broker, and nothing else uses it, so names need to be unique
/// only within it. Methods may be called concurrently.
#[async_trait]
pub trait Harness: fmt::Debug + Send + Sync + 'static {
    /// Opens a new connection, as another process would.
    async fn client(&self) -> Client;

    /// Like [`client`](Self::client), for the client with this name: [`Fault::Freeze`] and faults of the
    /// [`proxy`](Self::proxy) refer to it by the name. A member's client has the name of the member. Several clients
    /// may have the same name; a fault affects all of them. By default, names are ignored.
    async fn named_client(&self, name: &str) -> Client {
        let _ = name;
        self.client().await
    }

    /// Opens a new connection whose producers have a short send timeout, if the backend has such a
    /// setting.
    async fn impatient_client(&self) -> Client {
        self.client().await
    }

    /// Returns a name for a stream or a group that was never used on this broker: at most 60 of `a-z 0-9
    /// -`, beginning with `prefix`.
    fn unique(&self, prefix: &str) -> String;

    /// Returns the timing of this broker.
    fn timing(&self) -> Timing;

    /// Returns the limits of a stream on this broker, as its driver reports them.
    fn limits(&self) -> driver::StreamLimits;

    /// Returns which faults [`inject`](Self::inject) supports. Read once, before anything else.
    fn hooks(&self) -> Hooks;

    /// Returns the proxy of all connections of its clients, if [`Hooks::network`] is true.
    /// [`named_client`](Self::named_client) connects to the [port](TcpProxy::port) of that name, so that
    /// cases can disturb the connections of each client. By default there is none.
    fn proxy(&self) -> Option<&TcpProxy> {
        None
    }

    /// Returns the number of attempts to send to a stream, or to store the checkpoint of a group, that faults have
    /// affected so far. A case that passes without its fault proves nothing.
    fn hits(&self, stream_or_group: &str) -> u64;

    /// Returns the faults that this harness injects by itself in every case: none, unless it has, for
    /// example, a proxy that breaks connections. The checker must know them, or it reports their effects
    /// as violations. Read when a case creates its fleet.
    fn own_faults(&self) -> Vec<OwnFault> {
        Vec::new()
    }

    /// Injects a fault, and returns when it is in effect. Called only with faults that
    /// [`hooks`](Self::hooks) declares.
    async fn inject(&self, fault: Fault);
}

/// The durations that apply to a broker.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The session timeout: how long a silent member keeps its partitions.
    pub session: Duration,
    /// How long a clean handover may take, without the drain. Well below `session`.
    pub handover: Duration,
    /// The timeout of every wait.
    pub timeout: Duration,
    /// The interval at which conditions are polled.
    pub poll_interval: Duration,
    /// The resolution of the broker's timestamps: a record that is stored later by this duration has a later
    /// timestamp.
    pub timestamps: Duration,
}

impl Timing {
    /// Returns how long a whole case may take: ten times `timeout`. A case that takes longer waits for
    /// something without a timeout, to which a correct driver would have responded.
    pub fn case_limit(&self) -> Duration {
        self.timeout * 10
    }
}

/// The faults that are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hooks {
    /// [`Fault::FailSends`].
    pub fail_sends: bool,
    /// [`Fault::FailSends`] of one key, while the other keys of the partition continue. A broker that
    /// has a result for each record of a batch supports it, unless the driver packs records of several keys into
    /// one of the broker's.
    pub fail_sends_by_key: bool,
    /// [`Fault::TimeOutSends`].
    pub time_out_sends: bool,
    /// [`Fault::ThrottleSends`].
    pub throttle_sends: bool,
    /// [`Fault::DelaySends`].
    pub delay_sends: bool,
    /// [`Fault::DelayJoin`].
    pub delay_join: bool,
    /// [`Fault::Freeze`].
    pub freeze: bool,
    /// [`Fault::FailCheckpoints`].
    pub fail_checkpoints: bool,
    /// [`Fault::LoseCheckpoints`].
    pub lose_checkpoints: bool,
    /// [`Fault::RefusePublishLate`].
    pub refuse_publish_late: bool,
    /// [`Fault::LosePublishResponses`].
    pub lose_publish_responses: bool,
    /// [`Fault::RefuseLarge`].
    pub refuse_large: bool,
    /// [`Fault::Steal`].
    pub steal: bool,
    /// [`Fault::Trim`].
    pub trim: bool,
    /// [`Fault::Restart`].
    pub restart: bool,
    /// Faults of the network, by [`Harness::proxy`].
    pub network: bool,
    /// Not a fault to inject: whether a member that is cut off reports the loss by its own clock, as
    /// [`driver`](millstream_core::driver#liveness) requires. A driver that cannot do so must document
    /// it.
    pub own_session_clock: bool,
    /// Not a fault to inject: whether tokio's clock is paused, so that no time passes while a thread is
    /// blocked.
    pub paused_clock: bool,
    /// Not a fault to inject: whether a record is stored once even if the response to its send is lost
    /// and the driver repeats the send, as the driver documents.
    pub idempotent_sends: bool,
    /// Not a fault to inject: whether a reshard may store records twice, like a lost response.
    pub reshard_repeats_sends: bool,
}

/// A fault to inject.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The next records of the stream are not stored and fail with a retryable error: `times`
    /// attempts, of one key or of any.
    FailSends {
        /// The stream.
        stream: String,
        /// The key. `None`, or without [`Hooks::fail_sends_by_key`], any key.
        key: Option<String>,
        /// The number of attempts.
        times: u32,
    },
    /// The next records of the stream are stored, but `send` returns `Timeout`: `times` attempts.
    TimeOutSends {
        /// The stream.
        stream: String,
        /// The number of attempts.
        times: u32,
    },
    /// The next records of the stream get `Throttled`: `times` attempts.
    ThrottleSends {
        /// The stream.
        stream: String,
        /// The number of attempts.
        times: u32,
    },
    /// Responses for records of the stream are delayed from now on. A delay of zero ends it.
    DelaySends {
        /// The stream.
        stream: String,
        /// The delay.
        by: Duration,
    },
    /// The next join of the member takes longer, as if the broker did not respond for a while.
    DelayJoin {
        /// The group.
        group: String,
        /// The application's name for the member.
        member: String,
        /// The delay.
        by: Duration,
    },
    /// The member sends and receives nothing for a while; its handlers continue. This replaces an earlier
    /// freeze of the member: cases end one by a freeze of zero.
    Freeze {
        /// The group.
        group: String,
        /// The application's name for the member.
        member: String,
        /// The duration.
        duration: Duration,
    },
    /// The next checkpoints of the group are rejected with a retryable error.
    FailCheckpoints {
        /// The group.
        group: String,
        /// The number of attempts.
        times: u32,
    },
    /// The next checkpoints of the group are acknowledged as stored, but are not stored.
    LoseCheckpoints {
        /// The group.
        group: String,
        /// The number of attempts.
        times: u32,
    },
    /// The next step of an exactly-once pipeline of the group stores nothing, and `publish` returns
    /// `Fenced` only `after` that, as if the response were in transit for this long.
    ///
    /// Only this response is late. The fault removes nobody from the group: a case steals the member's
    /// partitions meanwhile, and the member must learn of that, and be assigned partitions in new epochs,
    /// before `publish` returns.
    RefusePublishLate {
        /// The group.
        group: String,
        /// The delay.
        after: Duration,
    },
    /// The next steps of pipelines of the group are stored, but the broker's responses are lost: the
    /// driver must find out their results.
    LosePublishResponses {
        /// The group.
        group: String,
        /// The number of steps.
        times: u32,
    },
    /// From now on the stream rejects records of more than `limit` bytes, although its driver reports a
    /// larger limit: a pipeline gets the rejection when it publishes. `None` ends it.
    RefuseLarge {
        /// The stream.
        stream: String,
        /// The bytes of key, payload and headers.
        limit: Option<usize>,
    },
    /// The partition is revoked from its owner without a drain, and assigned to another member, or to the
    /// same one in a new epoch. The owner may lose its other partitions too: Kafka removes a member from
    /// its group with all its partitions, while a lease is for one partition.
    ///
    /// If nobody owns the partition at this moment, because the group is assigning its partitions, the
    /// harness waits until it has an owner.
    Steal {
        /// The group.
        group: String,
        /// The partition.
        partition: Partition,
    },
    /// Retention removes all records of the stream that are stored now, except possibly the newest of
    /// each partition. The members of the group have left, as if long ago.
    Trim {
        /// The group.
        group: String,
        /// The stream.
        stream: String,
    },
    /// The broker restarts, with everything that it has acknowledged.
    Restart,
}

/// A fault that is not a [`Fault`], for the history: a harness's own, or a test's own
/// with [`Fleet::own_fault`](crate::fleet::Fleet::own_fault).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFault {
    /// What it disturbs.
    pub disturbs: Disturbed,
    /// A description, for readers.
    pub what: String,
}

/// The target of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disturbed {
    /// Producers: a record may be stored twice, or fail although it is stored.
    Sends,
    /// All members of the group: records that they settled without storing the checkpoint are delivered again.
    Group,
    /// One member of the group, by the application's name for it.
    Member(String),
}

/// A guarantee or fault that a case needs.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// A guarantee or a fault must exist, by its name in [`Guarantees`] or [`Hooks`].
    Has(&'static str, fn(&Guarantees, &Hooks) -> bool),
    /// A guarantee or a fault must be missing: the case shows the clear refusal.
    Lacks(&'static str, fn(&Guarantees, &Hooks) -> bool),
}

impl Need {
    /// Returns whether a backend meets it.
    pub fn met(&self, guarantees: &Guarantees, hooks: &Hooks) -> bool {
        match self {
            Self::Has(_, has) => has(guarantees, hooks),
            Self::Lacks(_, has) => !has(guarantees, hooks),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Has(name, _) => f.write_str(name),
            Self::Lacks(name, _) => write!(f, "no {name}"),
        }
    }
}

/// Creates a stream with a unique name.
pub async fn unique_stream(harness: &dyn Harness, partitions: usize) -> String {
    let name = harness.unique("stream");
    let spec = StreamSpec::new(name.as_str()).partitions(partitions);
    let streams = harness.client().await.streams();
    streams.create(spec).await.expect("the stream is created");
    name
}

/// Waits until `met` returns a value, and returns it.
///
/// # Panics
/// After the harness's timeout, with the awaited condition `what` and the caller's line.
#[track_caller]
pub fn eventually<'a, T, F>(
    timing: Timing,
    what: &'a str,
    met: impl FnMut() -> F + 'a,
) -> impl Future<Output = T> + 'a
where
    F: Future<Output = Option<T>> + 'a,
    T: 'a,
{
    eventually_or(Location::caller(), timing, what, met, String::new)
}

thread_local! {
    /// The last wait of the case on this thread.
    static LAST_WAIT: Cell<Option<&'static Location<'static>>> = const { Cell::new(None) };
}

/// Returns where the case on this thread last completed a wait.
pub(crate) fn last_wait() -> Option<&'static Location<'static>> {
    LAST_WAIT.get()
}

/// Records that a wait has ended, for [`last_wait`].
pub(crate) fn note_wait(caller: &'static Location<'static>) {
    LAST_WAIT.set(Some(caller));
}

/// Like [`eventually`], for a known caller, and with a report of what is missing.
pub(crate) async fn eventually_or<T, F>(
    caller: &'static Location<'static>,
    timing: Timing,
    what: &str,
    mut met: impl FnMut() -> F,
    report: impl Fn() -> String,
) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + timing.timeout;
    loop {
        if let Some(value) = met().await {
            note_wait(caller);
            return value;
        }
        if Instant::now() >= deadline {
            let timeout = timing.timeout;
            panic!("waited {timeout:?} for: {what} ({caller})\n{}", report());
        }
        tokio::time::sleep(timing.poll_interval).await;
    }
}

/// Waits for a future, and returns its result.
///
/// # Panics
/// After the harness's timeout, with the awaited condition `what` and the caller's line.
#[track_caller]
pub fn within_timeout<'a, T: 'a>(
    timing: Timing,
    what: &'a str,
    future: impl Future<Output = T> + 'a,
) -> impl Future<Output = T> + 'a {
    let caller = Location::caller();
    async move {
        let result = tokio::time::timeout(timing.timeout, future).await;
        let timeout = timing.timeout;
        let result = result.unwrap_or_else(|_| panic!("waited {timeout:?} for: {what} ({caller})"));
        note_wait(caller);
        result
    }
}
