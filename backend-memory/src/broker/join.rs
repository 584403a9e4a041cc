//! Joining a group.

use std::sync::Arc;

use millstream_core::driver::JoinOptions;
use millstream_core::{Start, failpoint};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::BrokerState;
use crate::coordinator::{GroupMember, Presence};
use crate::error::BrokerError;
use crate::ids::{GroupId, MemberId};
use crate::journal::JournalEntry;

/// A member that has joined.
pub(crate) struct JoinedMember {
    pub(crate) group: GroupId,
    pub(crate) member: MemberId,
    /// Notified when the member has something to fetch.
    pub(crate) wake: Arc<Notify>,
    /// Notified when a fault changes how long the member is paused.
    pub(crate) pause_changed: Arc<Notify>,
}

/// The reason why a join failed, with the stream if it concerns one.
pub(crate) struct JoinError {
    pub(crate) stream: Option<Arc<str>>,
    pub(crate) error: BrokerError,
}

impl From<BrokerError> for JoinError {
    fn from(error: BrokerError) -> Self {
        Self {
            stream: None,
            error,
        }
    }
}

impl BrokerState {
    /// Adds a member. The first member of a group creates it and stores its start.
    pub(crate) fn join(
        &mut self,
        name: &Arc<str>,
        options: &JoinOptions,
        now: Instant,
    ) -> Result<JoinedMember, JoinError> {
        let mut streams = Vec::with_capacity(options.streams.len());
        for stream in &options.streams {
            let id = self.open_stream(stream).map_err(|error| JoinError {
                stream: Some(stream.clone()),
                error,
            })?;
            streams.push(id);
        }
        let mut start = options.start;
        let group = match self.group_id(name) {
            Ok(group) => {
                if failpoint!(RecreatedSkipped) {
                    start = Start::Latest;
                }
                group
            }
            Err(_) => {
                let name = name.to_string();
                self.commit(JournalEntry::GroupCreated { name })?;
                self.groups.len() - 1
            }
        };
        for stream in &streams {
            if !self.groups[group].reads(*stream) {
                let offsets = self.start_offsets(*stream, start, now)?;
                self.commit(JournalEntry::OffsetsSet {
                    group,
                    stream: *stream,
                    offsets,
                })?;
            }
        }
        self.joined += 1;
        let wake = Arc::new(Notify::new());
        let pause_changed = Arc::new(Notify::new());
        let member = GroupMember {
            name: options.member.as_deref().map(Into::into),
            ordinal: self.joined,
            streams: streams.into_iter().collect(),
            batch_records: options.batch_records.max(1),
            batch_bytes: options.batch_bytes.max(1) as u64,
            drain_timeout: options.drain,
            owned: Default::default(),
            events: Default::default(),
            ready: Default::default(),
            paused: 0,
            lag_due: now,
            wake: wake.clone(),
            presence: Presence::Present,
            pause_changed: pause_changed.clone(),
            presence_version: 0,
            expired: false,
            attached: true,
            deleted_stream: None,
        };
        Ok(JoinedMember {
            group,
            member: self.groups[group].join(member),
            wake,
            pause_changed,
        })
    }
}
