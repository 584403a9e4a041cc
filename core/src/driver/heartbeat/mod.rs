//! The life of a member's session: heartbeats, its expiry by the member's own clock, and joining again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::select;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::spawn_thread;
use crate::{Error, ErrorKind, Result};

mod session;
#[cfg(test)]
mod tests;

use session::Session;

/// The times of a member's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// How long the store waits for a heartbeat before it assigns the partitions to other members.
    pub timeout: Duration,
    /// The time between two heartbeats. At most a third of `timeout` is recommended, so that a lost heartbeat
    /// can be repeated.
    pub heartbeat_interval: Duration,
}

/// The response of the store to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeartbeatResponse {
    /// The session is renewed.
    Renewed,
    /// The store no longer knows the member: its session has expired, or it was removed.
    UnknownMember,
}

/// A member whose session is kept by a [`HeartbeatThread`]. Its methods are never called concurrently.
#[async_trait]
pub trait HeartbeatMember: Send + Sync + 'static {
    /// Renews the session, and applies the store's assignments of the member (see
    /// [`Assignments::reconcile`](super::Assignments::reconcile)).
    ///
    /// # Errors
    /// A retryable error is retried; any other ends the membership.
    ///
    /// # Cancel safety
    /// An attempt that takes too long is dropped, and repeated.
    async fn heartbeat(&self) -> Result<HeartbeatResponse>;

    /// Joins again, after [`lost`](Self::lost). From the join on, the partitions that the member had must
    /// count as lost to it in the store too: it gets them in a larger epoch, if at all.
    ///
    /// # Errors
    /// As for [`heartbeat`](Self::heartbeat).
    ///
    /// # Cancel safety
    /// As for [`heartbeat`](Self::heartbeat).
    async fn rejoin(&self) -> Result<()>;

    /// Ends all assignments (see [`Assignments::mark_all_lost`](super::Assignments::mark_all_lost)): other members
    /// may already have them.
    fn lost(&self);

    /// Ends the membership (see [`Assignments::fail`](super::Assignments::fail)). No call follows.
    fn failed(&self, error: Error);
}

/// Keeps the session of a member by heartbeats from a dedicated thread, so that a handler that blocks
/// the application's runtime does not interrupt them.
///
/// * A session expires by the member's own clock, counted from the **sending** of the last heartbeat that
///   succeeded. So the member knows that it has lost its partitions no later than the store assigns them
///   to others, even if it is cut off from the store.
/// * A member whose session has expired joins again, until it succeeds.
/// * A heartbeat that panics ends the membership with an error. It does not silently stop.
///
/// Dropping it is a crash: heartbeats stop, and the store waits for the session timeout. `Drop` does not
/// block.
#[derive(Debug)]
#[must_use = "the heartbeats stop when it is dropped"]
pub struct HeartbeatThread {
    stop: CancellationToken,
    ended: CancellationToken,
}

impl HeartbeatThread {
    /// Starts the thread for a member that has joined. `joined` is when the join request was sent, and
    /// `name` is the name of the thread.
    ///
    /// # Errors
    /// `Unavailable` if the system starts no thread.
    ///
    /// # Panics
    /// If `name` contains a NUL byte.
    pub fn spawn(
        name: &str,
        options: SessionOptions,
        joined: Instant,
        member: Arc<dyn HeartbeatMember>,
    ) -> Result<Self> {
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let session = Session::new(options, joined.into());
        let (stopped, end) = (stop.clone(), ended.clone().drop_guard());
        spawn_thread(name, async move {
            let _end = end;
            let kept = keep_alive(session, &*member, &stopped);
            if AssertUnwindSafe(kept).catch_unwind().await.is_err() {
                member.lost();
                let message = "the heartbeat of the member panicked";
                member.failed(Error::new(ErrorKind::Closed, "heartbeat", message));
            }
        })?;
        Ok(Self { stop, ended })
    }

    /// Stops the heartbeats, and returns when none is in flight. A member must stop them before it leaves, so
    /// that no late heartbeat makes it a member again.
    ///
    /// # Cancel safety
    /// A dropped call also stops the heartbeats.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }
}

impl Drop for HeartbeatThread {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Keeps a session until it is stopped, or the membership ends.
async fn keep_alive(mut session: Session, member: &dyn HeartbeatMember, stop: &CancellationToken) {
    loop {
        // The clock is checked first: after a suspension of the process, a waiting response is late.
        select! {
            biased;
            () = stop.cancelled() => return,
            () = expiry(&session) => {
                session.expire(tokio::time::Instant::now());
                member.lost();
                continue;
            }
            () = sleep_until(session.due) => {}
        }
        let sent = tokio::time::Instant::now();
        let attempt = async {
            match session.expires() {
                Some(_) => member.heartbeat().await,
                None => member.rejoin().await.map(|()| HeartbeatResponse::Renewed),
            }
        };
        let response = select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep_until(session.attempt_deadline(sent)) => None,
            response = attempt => Some(response),
        };
        match response {
            Some(Ok(HeartbeatResponse::Renewed)) => session.renew(sent),
            Some(Ok(HeartbeatResponse::UnknownMember)) => {
                session.expire(tokio::time::Instant::now());
                member.lost();
            }
            Some(Err(error)) if !error.is_retryable() => {
                member.lost();
                return member.failed(error);
            }
            Some(Err(_)) | None => session.fail(tokio::time::Instant::now()),
        }
    }
}

/// Waits until the session has expired.
async fn expiry(session: &Session) {
    match session.expires() {
        Some(expires) => sleep_until(expires).await,
        None => std::future::pending().await,
    }
}
