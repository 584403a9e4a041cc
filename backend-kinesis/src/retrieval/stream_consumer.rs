//! A group as a registered consumer of one stream. The readers of a member share it.
//!
//! With `fan_out_fallback`, readers poll while enhanced fan-out is refused: by the registration, or by a subscription.
//! The registration is repeated every few minutes, once for all of them, and then they subscribe again.

use std::fmt::Debug;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use millstream_core::telemetry::{Causes, event};
use millstream_core::{Error, ErrorKind, Result};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::listing::Listing;

/// The time between two attempts to register while enhanced fan-out is refused. It varies by a quarter, so that members
/// that were refused together do not try together: RegisterStreamConsumer is limited to 5 calls per second.
pub(super) const RETRY: Duration = Duration::from_secs(240);

/// How often a registration is attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempts {
    /// Until `request_timeout`.
    Many,
    One,
}

/// Registers a consumer with a stream.
#[async_trait]
pub(super) trait Registrar: Debug + Send + Sync {
    /// Registers the consumer, if it is not yet registered, and waits until it may subscribe. Returns its ARN.
    async fn register(&self, attempts: Attempts) -> Result<Arc<str>>;
}

/// The registered consumer. Dropping it ends the attempts to register.
#[derive(Debug)]
pub(crate) struct StreamConsumer {
    consumer: Arc<Shared>,
    /// The task that registers again. `None` without `fan_out_fallback`.
    registering: Option<AbortHandle>,
    /// Whether it was reported that others use the consumer.
    is_contended: AtomicBool,
    /// The shards of the stream.
    pub(super) listing: Listing,
}

/// The part that the task uses as well.
#[derive(Debug)]
struct Shared {
    stream: Arc<str>,
    name: Arc<str>,
    access: watch::Sender<Access>,
}

/// Whether the consumer may subscribe.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Access {
    /// Readers subscribe with this ARN.
    Granted(Arc<str>),
    /// Readers poll.
    Refused,
    /// Readers try to subscribe with this ARN. No subscription was accepted since the refusal.
    Tried(Arc<str>),
}

impl StreamConsumer {
    /// Registers the consumer `name` with a stream. If that is refused and `fallback` is set, readers poll until it is not.
    pub(super) async fn register(
        stream: &str,
        name: &str,
        fallback: bool,
        registrar: impl Registrar + 'static,
    ) -> Result<Self> {
        let registered = registrar.register(Attempts::Many).await;
        let (access, refusal) = match registered {
            Ok(arn) => (Access::Granted(arn), None),
            // Throttling that outlasts the attempts is also how Kinesis says that a stream has no room for a consumer.
            Err(error)
                if fallback && matches!(error.kind(), ErrorKind::Denied | ErrorKind::Throttled) =>
            {
                (Access::Refused, Some(error))
            }
            Err(error) => return Err(error.with_stream(stream)),
        };
        let consumer = Arc::new(Shared {
            stream: stream.into(),
            name: name.into(),
            access: watch::Sender::new(access),
        });
        if let Some(error) = refusal {
            consumer.report_refusal(&error);
        }
        let registering =
            fallback.then(|| tokio::spawn(register_again(consumer.clone(), registrar)));
        Ok(Self {
            consumer,
            registering: registering.map(|task| task.abort_handle()),
            is_contended: AtomicBool::new(false),
            listing: Listing::default(),
        })
    }

    /// Returns the ARN with which to subscribe; `None` while readers poll.
    pub(super) fn arn(&self) -> Option<Arc<str>> {
        match &*self.consumer.access.borrow() {
            Access::Granted(arn) | Access::Tried(arn) => Some(arn.clone()),
            Access::Refused => None,
        }
    }

    /// Handles an accepted subscription.
    pub(super) fn accepted(&self) {
        let was_restored = self.consumer.access.send_if_modified(|access| {
            let Access::Tried(arn) = access else {
                return false;
            };
            *access = Access::Granted(arn.clone());
            true
        });
        if was_restored {
            event!(
                info,
                "millstream.kinesis.fan_out.restored",
                stream = %self.consumer.stream,
                consumer = %self.consumer.name,
                "enhanced fan-out is accepted, and the stream is no longer polled"
            );
        }
    }

    /// Returns whether readers poll while enhanced fan-out is refused.
    pub(super) fn has_fallback(&self) -> bool {
        self.registering.is_some()
    }

    /// Handles a refused subscription: until the consumer has been registered again, readers poll.
    pub(super) fn refused(&self, error: &Error) {
        self.consumer.refuse(error);
    }

    /// Reports that others use the consumer: so many times within a minute, they took the place of a reader. Reported once.
    pub(super) fn report_contention(&self, partition: &str, incidents: usize) {
        if self.is_contended.swap(true, Ordering::Relaxed) {
            return;
        }
        event!(
            warn,
            "millstream.kinesis.fan_out.contended",
            stream = %self.consumer.stream,
            consumer = %self.consumer.name,
            partition,
            incidents,
            "subscriptions are replaced every few seconds: another group seems to use this consumer name. Set \
             `consumer.fan_out_name`"
        );
    }
}

impl Drop for StreamConsumer {
    fn drop(&mut self) {
        if let Some(task) = &self.registering {
            task.abort();
        }
    }
}

impl Shared {
    fn refuse(&self, error: &Error) {
        let mut was = Access::Refused;
        self.access.send_if_modified(|access| {
            was = mem::replace(access, Access::Refused);
            was != Access::Refused
        });
        match was {
            Access::Granted(_) => self.report_refusal(error),
            Access::Tried(_) => self.report_retry(error),
            Access::Refused => {}
        }
    }

    fn report_refusal(&self, error: &Error) {
        event!(
            warn, "millstream.kinesis.fan_out.refused",
            stream = %self.stream, consumer = %self.name, error = %Causes(error),
            "enhanced fan-out is refused, and the stream is polled until it is not"
        );
    }

    fn report_retry(&self, error: &Error) {
        event!(
            debug, "millstream.kinesis.fan_out.refused",
            stream = %self.stream, consumer = %self.name, error = %Causes(error),
            "enhanced fan-out is still refused"
        );
    }
}

/// Registers the consumer again, a while after each refusal.
async fn register_again(consumer: Arc<Shared>, registrar: impl Registrar) {
    let mut access = consumer.access.subscribe();
    while access
        .wait_for(|access| *access == Access::Refused)
        .await
        .is_ok()
    {
        sleep(RETRY.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        match registrar.register(Attempts::One).await {
            Ok(arn) => _ = consumer.access.send_replace(Access::Tried(arn)),
            Err(error) => consumer.report_retry(&error),
        }
    }
}
