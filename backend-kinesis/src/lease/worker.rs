//! The handle of a member's leases.

use millstream_core::driver::spawn_thread;
use millstream_core::{Epoch, Position, Result};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::birth;
use super::key::LeaseKey;
use super::member::{Command, Member, closed};
use super::options::{LeaseEvent, WorkerOptions};
use super::row::Tip;
use crate::stream::Shard;

/// One member's leases.
///
/// They are renewed on a thread of their own, so that no handler that blocks the application's
/// runtime can lose one. Store and source are only used there: a client of AWS given to them should
/// be used by nobody else, since its connections are driven by the runtime that opened them.
///
/// Dropping it is a crash: renewals stop at once, and others take over after the time-out. `Drop`
/// does not block.
#[derive(Debug)]
pub(crate) struct Worker {
    // Neither queue is bounded: each call waits for its answer, and each lease has a few events.
    commands: mpsc::UnboundedSender<Command>,
    events: Mutex<mpsc::UnboundedReceiver<LeaseEvent>>,
}

/// Tells whether a join was successful.
type Ready = oneshot::Sender<Result<()>>;

impl Worker {
    /// Makes sure that there is a table that can be shared and that each stream has its first
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

    /// The handle, what has to run for it, and what tells of the join.
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

    /// Waits for what happens to the leases. One caller at a time. Cancel safe: a dropped call loses
    /// nothing. After the end of the membership it is `Failed` for ever.
    pub(crate) async fn next(&self) -> LeaseEvent {
        let event = self.events.lock().await.recv().await;
        event.unwrap_or_else(|| LeaseEvent::Failed(closed("lease")))
    }

    /// Stores progress. `Fenced` if the lease is not this member's in that epoch.
    ///
    /// A retryable error leaves it stored or not, as a dropped call does.
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

    /// Stores that a shard is read to its end, after its children have their leases. Without
    /// `children` they are looked up.
    ///
    /// `Unavailable` if that cannot be now (the other parent of a merge has no lease yet, or the
    /// shard is not closed); the call may be made again, as often as it takes.
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

    /// Gives a lease up: to who asks for it, or to whoever takes it first.
    pub(crate) async fn release(&self, lease: &LeaseKey, epoch: Epoch) -> Result<()> {
        let lease = lease.clone();
        let command = |reply| Command::Release {
            lease,
            epoch,
            reply,
        };
        self.call("release", command).await
    }

    /// Has the next renewals note that nothing was left to be read, as soon as progress is stored so
    /// far: whoever has the lease next can tell a quiet shard from one whose records are gone.
    pub(crate) fn note_tip(&self, lease: &LeaseKey, epoch: Epoch, tip: Tip) {
        let lease = lease.clone();
        // Without a member there is nothing to note.
        let _ = self.commands.send(Command::NoteTip { lease, epoch, tip });
    }

    /// Gives up all leases and ends the membership. Returns when others can take them: what the
    /// table cannot be told of has expired by then.
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

/// The whole life of a member.
async fn live(
    options: WorkerOptions,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<LeaseEvent>,
    mut ready: Ready,
) {
    let born = tokio::select! {
        born = birth::prepare(&options) => born,
        () = ready.closed() => return,
    };
    match born {
        Ok(born) => {
            let member = Member::new(options, born, commands, events);
            if ready.send(Ok(())).is_ok() {
                member.run().await;
            }
        }
        Err(error) => {
            let error = error.with_group(options.group.clone());
            // Who does not wait any more does not want to know.
            let _ = ready.send(Err(error));
        }
    }
}
