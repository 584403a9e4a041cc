//! The handles of a group and of one member.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::driver::{self, CheckpointUpdate, Event, JoinOptions};
use millstream_core::{Epoch, Error, Partition, Record, Result};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::broker::{Broker, BrokerState, FetchResult, JoinError};
use crate::coordinator::Presence;
use crate::error::BrokerError;
use crate::ids::{GroupId, MemberId};
use crate::publish::{PublishOutcome, PublishRequest};

#[derive(Debug)]
pub(crate) struct MemoryGroup {
    pub(crate) broker: Arc<Broker>,
    pub(crate) name: Arc<str>,
}

#[async_trait]
impl driver::ConsumerGroup for MemoryGroup {
    async fn join(&self, options: JoinOptions) -> Result<Arc<dyn driver::Membership>> {
        let joined = self
            .broker
            .with(|state, now| state.join(&self.name, &options, now));
        let joined = joined.map_err(|JoinError { stream, error }| {
            let error = error.during("join").with_group(self.name.clone());
            match stream {
                Some(stream) => error.with_stream(stream),
                None => error,
            }
        })?;
        let name = options.member.as_deref().unwrap_or("member");
        Ok(Arc::new(MemoryMembership {
            broker: self.broker.clone(),
            group: joined.group,
            member: joined.member,
            id: format!("{name}-{}", joined.member),
            group_name: self.name.clone(),
            wake: joined.wake,
            pause_changed: joined.pause_changed,
        }))
    }
}

#[derive(Debug)]
struct MemoryMembership {
    broker: Arc<Broker>,
    group: GroupId,
    member: MemberId,
    id: String,
    group_name: Arc<str>,
    wake: Arc<Notify>,
    pause_changed: Arc<Notify>,
}

#[async_trait]
impl driver::Membership for MemoryMembership {
    fn id(&self) -> &str {
        &self.id
    }

    async fn next(&self) -> Result<Vec<Event>> {
        loop {
            let fetched = self.broker.with(|state, now| {
                match state.member_mut(self.group, self.member)?.presence {
                    Presence::Present => state.fetch(self.group, self.member, now),
                    Presence::Paused { .. } => state.fetch_cut_off(self.group, self.member, now),
                    Presence::Gone => Err(BrokerError::MemberCrashed),
                }
            });
            match fetched.map_err(|error| self.error(&error, "read"))? {
                FetchResult::Events(events) => return Ok(events),
                // The `Notify` keeps a wake-up between the check and the wait, because there is only one
                // waiter.
                FetchResult::Idle { until: None } => self.wake.notified().await,
                FetchResult::Idle { until: Some(until) } => {
                    // Notified or timed out: check again.
                    let _ = timeout_at(until, self.wake.notified()).await;
                }
            }
        }
    }

    async fn checkpoint(&self, updates: &[CheckpointUpdate]) -> Vec<Result<()>> {
        let results = self
            .request(|state, _| Ok(state.checkpoint(self.group, self.member, updates)))
            .await;
        let results = results.unwrap_or_else(|error| vec![Err(error); updates.len()]);
        let results = results.into_iter().zip(updates);
        results
            .map(|(result, update)| {
                result.map_err(|error| {
                    self.error(&error, "checkpoint")
                        .with_partition(&update.partition)
                })
            })
            .collect()
    }

    async fn publish(
        &self,
        stream: &str,
        records: &[Record],
        updates: &[CheckpointUpdate],
    ) -> Result<()> {
        let request = PublishRequest {
            group: self.group,
            member: self.member,
            stream,
            records,
            updates,
        };
        let started = self.request(|state, now| Ok(request.start(state, now)));
        let published = match started.await {
            Ok(PublishOutcome::Done(published)) => published,
            Ok(PublishOutcome::Delayed { send, until }) => {
                sleep_until(until).await;
                self.request(|state, now| request.store(state, Some(send), now))
                    .await
            }
            Err(error) => Err(error),
        };
        published.map_err(|error| self.error(&error, "publish").with_stream(stream))
    }

    async fn release(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        let released = self.request(|state, _| {
            let partition = state.catalog.partition_ref(partition)?;
            state.groups[self.group].release(self.member, partition, epoch.0)
        });
        released
            .await
            .map_err(|error| self.error(&error, "release").with_partition(partition))
    }

    async fn complete(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        let completed =
            self.request(|state, _| state.complete(self.group, self.member, partition, epoch));
        completed
            .await
            .map_err(|error| self.error(&error, "complete").with_partition(partition))
    }

    fn pause(&self, partition: &Partition, epoch: Epoch) {
        self.set_paused(partition, epoch, true);
    }

    fn resume(&self, partition: &Partition, epoch: Epoch) {
        self.set_paused(partition, epoch, false);
    }

    async fn leave(&self) -> Result<()> {
        let left = self.request(|state, _| {
            state.groups[self.group].leave(self.member);
            Ok(())
        });
        left.await.map_err(|error| self.error(&error, "leave"))
    }
}

impl Drop for MemoryMembership {
    fn drop(&mut self) {
        self.broker
            .with(|state, now| state.groups[self.group].disconnect(self.member, now));
    }
}

impl MemoryMembership {
    /// Sends a request as a present member. A member that is paused by a fault hangs until the
    /// pause ends, before the request is sent.
    async fn request<T>(
        &self,
        mut request: impl FnMut(&mut BrokerState, Instant) -> Result<T, BrokerError> + Send,
    ) -> Result<T, BrokerError> {
        loop {
            // Created before the check, so that it is notified of every later change.
            let changed = self.pause_changed.notified();
            let paused_until = {
                let result = self.broker.with(|state, now| {
                    let member = state.groups[self.group].members.get(&self.member);
                    match member.ok_or(BrokerError::MemberGone)?.presence {
                        Presence::Present => request(state, now).map(Ok),
                        Presence::Paused { until } => Ok(Err(until)),
                        Presence::Gone => Err(BrokerError::MemberCrashed),
                    }
                });
                match result? {
                    Ok(result) => return Ok(result),
                    Err(until) => until,
                }
            };
            // Notified or timed out: check again.
            let _ = timeout_at(paused_until, changed).await;
        }
    }

    fn set_paused(&self, partition: &Partition, epoch: Epoch, paused: bool) {
        self.broker.with(|state, now| {
            let Ok(partition) = state.catalog.partition_ref(partition) else {
                return;
            };
            let Some(member) = state.groups[self.group].members.get_mut(&self.member) else {
                return;
            };
            member.set_paused(partition, epoch.0, paused, now);
        });
    }

    fn error(&self, error: &BrokerError, operation: &'static str) -> Error {
        let with_group = error.during(operation).with_group(self.group_name.clone());
        let deleted_stream = || {
            let state = self.broker.lock();
            let member = state.groups[self.group].members.get(&self.member);
            member.and_then(|member| member.deleted_stream.clone())
        };
        match error {
            BrokerError::StreamDeleted => match deleted_stream() {
                Some(stream) => with_group.with_stream(stream),
                None => with_group,
            },
            _ => with_group,
        }
    }
}
