//! The handle of a member's leases.

use millstream_core::driver::spawn_thread;
use millstream_core::{Epoch, Position, Result};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::bootstrap;
use super::command::{Command, closed};
use super::coordinator::LeaseCoordinator;
use super::key::LeaseKey;
use super::options::{LeaseEvent, WorkerOptions};
use super::row::Tip;
use crate::stream::Shard;

/// One member's leases.
///
/// They are renewed on a dedicated thread, so a handler that blocks the application's
/// runtime cannot lose one. Store and source are only used there: do not share an AWS client given to them,
/// because its connections are driven by the runtime that opened them.
///
/// Dropping it is like a crash: renewals stop at once, and others take over after the failover time. `Drop`
/// does not block.
#[derive(Debug)]
pub(crate) struct Worker {
    // Neither queue is bounded: each call waits for its result, and each lease has a few events.
    commands: mpsc::UnboundedSender<Command>,
    events: Mutex<mpsc::UnboundedReceiver<LeaseEvent>>,
}

/// Reports whether a join was successful.
type Ready = oneshot::Sender<Result<()>>;

impl Worker {
    /// Makes sure that there is a table that can be shared and that each stream has its initial
    /// leases, whose start is pinned; then takes leases in the background.
    ///
    /// Fails with `NotFound` for an unknown stream, `Invalid` for a table of other streams or of
    /// other keys, `Unsupported` for one that Java workers share by the KCL's native 3.x protocol. A
    /// dropped call leaves no lease taken.
    pub(crate) async fn join(options: WorkerOptions) -> Result<Self> {
        let (worker, member, joined) = Self::parts(options);
        spawn_thread("kinesis-leases", member)?;
        joined.await.unwrap_or_else(|_| Err(closed("join")))?;
        Ok(worker)
    }

    /// Returns the handle, the future that must run for it, and the receiver for the result of the join.
    pub(super) fn parts(
        options: WorkerOptions,
    ) -> (
        Self,
        impl Future<Output = ()> + Send + 'static,
        oneshot::Receiver<Result<()>>,
    ) {
        let (commands, orders) = mpsc::unbounded_channel();
        let (teller, events) = mpsc::unbounded_channel();
        let (ready, joined) = oneshot::channel();
        let worker = Self {
            commands,
            events: Mutex::new(events),
        };
        (worker, live(options, orders, teller, ready), joined)
    }

    /// Waits for the next event of the leases. One caller at a time. Cancel safe: a dropped call loses
    /// nothing. After the end of the membership it always returns `Failed`.
    pub(crate) async fn next(&self) -> LeaseEvent {
        let event = self.events.lock().await.recv().await;
        event.unwrap_or_else(|| LeaseEvent::Failed(closed("lease")))
    }

    /// Stores a checkpoint. `Fenced` if the lease is not this member's in that epoch.
    ///
    /// After a retryable error or a dropped call, it is stored or not.
    pub(crate) async fn checkpoint(
        &self,
        lease: &LeaseKey,
        epoch: Epoch,
        position: Position,
    ) -> Result<()> {
        let lease = lease.clone();
        let command = |reply| Command::Checkpoint {
            lease,
            epoch,
            position,
            reply,
        };
        self.call("checkpoint", command).await
    }

    /// Stores the shard end, after its children have their leases. Without
    /// `children` they are looked up.
    ///
    /// `Unavailable` if that is not possible now (the other parent of a merge has no lease yet, or the
    /// shard is not closed); the call may be repeated without limit.
    pub(crate) async fn complete(
        &self,
        lease: &LeaseKey,
        epoch: Epoch,
        children: &[Shard],
    ) -> Result<()> {
        let (lease, children) = (lease.clone(), children.to_vec());
        let command = |reply| Command::Complete {
            lease,
            epoch,
            children,
            reply,
        };
        self.call("complete", command).await
    }

    /// Releases a lease: to the member that requests it, or for any worker to take.
    pub(crate) async fn release(&self, lease: &LeaseKey, epoch: Epoch) -> Result<()> {
        let lease = lease.clone();
        let command = |reply| Command::Release {
            lease,
            epoch,
            reply,
        };
        self.call("release", command).await
    }

    /// Makes the next renewals note that nothing was left to be read, as soon as progress is stored up to the
    /// tip: the next owner of the lease can then distinguish a quiet shard from one whose records are gone.
    pub(crate) fn note_tip(&self, lease: &LeaseKey, epoch: Epoch, tip: Tip) {
        let lease = lease.clone();
        // Without a member there is nothing to note.
        let _ = self.commands.send(Command::NoteTip { lease, epoch, tip });
    }

    /// Releases all leases and ends the membership. Returns when others can take them: leases whose release
    /// cannot be stored have expired by then.
    pub(crate) async fn leave(&self) -> Result<()> {
        self.call("leave", |reply| Command::Leave { reply }).await
    }

    async fn call(
        &self,
        operation: &'static str,
        command: impl FnOnce(oneshot::Sender<Result<()>>) -> Command,
    ) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(command(reply)).is_err() {
            return Err(closed(operation));
        }
        answer.await.unwrap_or_else(|_| Err(closed(operation)))
    }
}

/// Runs a member from the join to its end.
async fn live(
    options: WorkerOptions,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<LeaseEvent>,
    mut ready: Ready,
) {
    let bootstrap = tokio::select! {
        bootstrap = bootstrap::prepare(&options) => bootstrap,
        () = ready.closed() => return,
    };
    match bootstrap {
        Ok(bootstrap) => {
            let coordinator = LeaseCoordinator::new(options, bootstrap, commands, events);
            if ready.send(Ok(())).is_ok() {
                coordinator.run().await;
            }
        }
        Err(error) => {
            let error = error.with_group(options.group.clone());
            // The caller may have dropped the call.
            let _ = ready.send(Err(error));
        }
    }
}
