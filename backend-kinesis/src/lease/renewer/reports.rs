//! What becomes known of held leases: to the application, to the coordinator, and in the logs.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::telemetry::event;
use tokio::sync::mpsc;

use super::event::{LossReason, RenewerEvent};
use super::held::Held;
use crate::lease::options::{LeaseEvent, ResumePoint};
use crate::stream::HashRange;

/// The reports of one renewer.
#[derive(Debug)]
pub(super) struct Reports {
    group: Arc<str>,
    /// To the application.
    leases: mpsc::UnboundedSender<LeaseEvent>,
    /// To the coordinator.
    events: Vec<RenewerEvent>,
}

impl Reports {
    pub(super) fn new(group: Arc<str>, leases: mpsc::UnboundedSender<LeaseEvent>) -> Self {
        Self {
            group,
            leases,
            events: Vec::new(),
        }
    }

    /// Returns what was reported to the coordinator since the last call.
    pub(super) fn take(&mut self) -> Vec<RenewerEvent> {
        std::mem::take(&mut self.events)
    }

    /// Reports to the coordinator alone.
    pub(super) fn push(&mut self, event: RenewerEvent) {
        self.events.push(event);
    }

    /// Reports that the application may read the shard, from this position on.
    pub(super) fn started(&self, held: &Held, from: ResumePoint, range: Option<HashRange>) {
        self.emit(LeaseEvent::Taken {
            lease: held.lease.clone(),
            epoch: held.epoch,
            from,
            tip: held.row.tip(),
            resolved: held.row.own.resolved,
            range,
        });
    }

    /// Reports that the application must release the lease for another member.
    pub(super) fn handoff_requested(&self, held: &Held, within: Duration) {
        let (lease, epoch) = (held.lease.clone(), held.epoch);
        event!(
            debug, "millstream.kinesis.lease.handoff_requested",
            group = %self.group, stream = %lease.stream, partition = %lease.shard,
            %epoch, "another member requests a lease"
        );
        self.emit(LeaseEvent::HandoffRequested {
            lease,
            epoch,
            within,
        });
    }

    /// Reports that the lease is taken from the application, which has not released it in time.
    pub(super) fn taken_back(&self, held: &Held) {
        self.emit(LeaseEvent::Lost {
            lease: held.lease.clone(),
            epoch: held.epoch,
        });
    }

    /// Reports that the shard end is stored.
    pub(super) fn shard_ended(&mut self, held: &Held) {
        event!(
            debug, "millstream.kinesis.lease.ended",
            group = %self.group, stream = %held.lease.stream, partition = %held.lease.shard,
            epoch = %held.epoch, "a shard is read to its end"
        );
        self.events.push(RenewerEvent::ShardEnded {
            lease: held.lease.clone(),
            children: held.row.children.clone(),
        });
    }

    /// Reports that the release is stored.
    pub(super) fn released(&mut self, key: &Arc<str>, held: &Held) {
        event!(
            debug, "millstream.kinesis.lease.released",
            group = %self.group, stream = %held.lease.stream, partition = %held.lease.shard,
            epoch = %held.epoch, "a lease was given up"
        );
        self.events.push(RenewerEvent::Released {
            key: key.clone(),
            next_owner: held.row.next_owner().cloned(),
        });
    }

    /// Reports that the lease is no longer held. Another member may have it.
    pub(super) fn lost(&mut self, held: &Held, reason: LossReason) {
        if reason == LossReason::Expired {
            event!(
                warn, "millstream.kinesis.lease.expired",
                group = %self.group, stream = %held.lease.stream, partition = %held.lease.shard,
                epoch = %held.epoch, "a lease could not be renewed in time"
            );
        }
        self.events.push(RenewerEvent::Lost(reason));
        if held.is_in_use() {
            event!(
                info, "millstream.kinesis.lease.lost",
                group = %self.group, stream = %held.lease.stream, partition = %held.lease.shard,
                epoch = %held.epoch, "a lease was lost"
            );
            self.emit(LeaseEvent::Lost {
                lease: held.lease.clone(),
                epoch: held.epoch,
            });
        }
    }

    fn emit(&self, event: LeaseEvent) {
        // A dropped handle has closed the commands too, which ends the loop.
        let _ = self.leases.send(event);
    }
}
