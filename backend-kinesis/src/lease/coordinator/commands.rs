//! The commands of the handle.

use millstream_core::{Error, ErrorKind};

use super::LeaseCoordinator;
use crate::lease::command::{Command, Reply, respond};

/// The state of a leave.
#[derive(Debug)]
pub(super) struct Leaving {
    reply: Reply,
    /// The withdrawals and notifications in flight.
    pub(super) open: usize,
    /// Whether a lease expired before its release was stored.
    pub(super) expired: bool,
}

impl LeaseCoordinator {
    pub(super) fn on_command(&mut self, command: Command) {
        match command {
            Command::Checkpoint {
                lease,
                epoch,
                position,
                reply,
            } => self.renewer.checkpoint(&lease, epoch, position, reply),
            Command::Complete {
                lease,
                epoch,
                children,
                reply,
            } => self.renewer.complete(&lease, epoch, children, reply),
            Command::Release {
                lease,
                epoch,
                reply,
            } => self.renewer.release(&lease, epoch, reply),
            Command::NoteTip { lease, epoch, tip } => self.renewer.note_tip(&lease, epoch, tip),
            Command::Leave { reply } => self.leave(reply),
        }
    }

    fn leave(&mut self, reply: Reply) {
        self.leaving = Some(Leaving {
            reply,
            open: 0,
            expired: false,
        });
        self.withdraw_requests();
        self.renewer.release_all();
    }

    /// Ends the membership when nothing is held any more, and the others are notified.
    pub(super) fn leave_if_released(&mut self) {
        let busy = |leaving: &Leaving| leaving.open > 0;
        if !self.renewer.is_empty() || !self.taking.is_empty() || self.leaving.iter().any(busy) {
            return;
        }
        // Not before all are free: as long as this member has a lease, the balance counts it.
        if let Some(leaving) = self.leaving.as_mut().filter(|_| !self.changed.is_empty()) {
            leaving.open = 1;
            let notifications = self.notifications();
            return self.run_concurrently(async move {
                notifications.await;
                |coordinator: &mut Self| coordinator.on_request_finished()
            });
        }
        if let Some(leaving) = self.leaving.take() {
            let message =
                "the releases could not be stored in time; the leases have expired by now";
            let error = Error::new(ErrorKind::Timeout, "leave", message);
            respond(
                leaving.reply,
                if leaving.expired { Err(error) } else { Ok(()) },
            );
        }
        self.done = true;
    }

    /// Records that a request for which a leave waits has ended.
    pub(super) fn on_request_finished(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.open -= 1;
        }
    }
}
