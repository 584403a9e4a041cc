//! A group by name, and one member of it.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::driver::{self, CheckpointUpdate, Event, JoinOptions};
use millstream_core::{Epoch, Error, Partition, Record, Result};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::broker::{Shared, State};
use crate::ids::{GroupId, MemberId};
use crate::member::Presence;
use crate::publication::{Begun, Publication};
use crate::refusal::Refusal;
use crate::session::Next;

#[derive(Debug)]
pub(crate) struct ConsumerGroup {
    pub(crate) shared: Arc<Shared>,
    pub(crate) name: Arc<str>,
}

#[async_trait]
impl driver::ConsumerGroup for ConsumerGroup {
    async fn join(&self, join: JoinOptions) -> Result<Arc<dyn driver::Membership>> {
        let joined = self
            .shared
            .with(|state, now| state.join(&self.name, &join, now));
        let (group, member, wake) = joined.map_err(|(stream, refusal)| {
            let error = refusal.during("join").with_group(self.name.clone());
            match stream {
                Some(stream) => error.with_stream(stream),
                None => error,
            }
        })?;
        let name = join.member.as_deref().unwrap_or("member");
        Ok(Arc::new(Membership {
            shared: self.shared.clone(),
            group,
            member,
            id: format!("{name}-{member}"),
            group_name: self.name.clone(),
            wake,
        }))
    }
}

#[derive(Debug)]
struct Membership {
    shared: Arc<Shared>,
    group: GroupId,
    member: MemberId,
    id: String,
    group_name: Arc<str>,
    wake: Arc<Notify>,
}

#[async_trait]
impl driver::Membership for Membership {
    fn id(&self) -> &str {
        &self.id
    }

    async fn next(&self) -> Result<Vec<Event>> {
        loop {
            let next = self
                .ask(|state, now| state.next(self.group, self.member, now))
                .await;
            match next.map_err(|refusal| self.error(&refusal, "read"))? {
                Next::Events(events) => return Ok(events),
                // A wake-up between looking and waiting is kept by the `Notify`, as there is one
                // waiter.
                Next::Nothing { until: None } => self.wake.notified().await,
                Next::Nothing { until: Some(until) } => {
                    // Whether woken or late: look again.
                    let _ = timeout_at(until, self.wake.notified()).await;
                }
            }
        }
    }

    async fn checkpoint(&self, marks: &[CheckpointUpdate]) -> Vec<Result<()>> {
        let answers = self
            .ask(|state, _| Ok(state.checkpoint(self.group, self.member, marks)))
            .await;
        let answers = answers.unwrap_or_else(|refusal| vec![Err(refusal); marks.len()]);
        let answers = answers.into_iter().zip(marks);
        answers
            .map(|(answer, mark)| {
                answer.map_err(|refusal| {
                    self.error(&refusal, "checkpoint")
                        .with_partition(&mark.partition)
                })
            })
            .collect()
    }

    async fn publish(
        &self,
        stream: &str,
        records: &[Record],
        marks: &[CheckpointUpdate],
    ) -> Result<()> {
        let publication = Publication {
            group: self.group,
            member: self.member,
            stream,
            records,
            marks,
        };
        let begun = self.ask(|state, now| Ok(publication.begin(state, now)));
        let published = match begun.await {
            Ok(Begun::Done(published)) => published,
            Ok(Begun::Delayed(send, until)) => {
                sleep_until(until).await;
                self.ask(|state, now| publication.store(state, Some(send), now))
                    .await
            }
            Err(refusal) => Err(refusal),
        };
        published.map_err(|refusal| self.error(&refusal, "publish").with_stream(stream))
    }

    async fn release(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        let released = self.ask(|state, _| {
            let slot = state.catalog.slot(partition)?;
            state.groups[self.group].release(self.member, slot, epoch.0)
        });
        released
            .await
            .map_err(|refusal| self.error(&refusal, "release").with_partition(partition))
    }

    async fn complete(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        let completed =
            self.ask(|state, _| state.complete(self.group, self.member, partition, epoch));
        completed
            .await
            .map_err(|refusal| self.error(&refusal, "complete").with_partition(partition))
    }

    fn pause(&self, partition: &Partition, epoch: Epoch) {
        self.set_paused(partition, epoch, true);
    }

    fn resume(&self, partition: &Partition, epoch: Epoch) {
        self.set_paused(partition, epoch, false);
    }

    async fn leave(&self) -> Result<()> {
        let left = self.ask(|state, _| {
            state.groups[self.group].leave(self.member);
            Ok(())
        });
        left.await.map_err(|refusal| self.error(&refusal, "leave"))
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.shared
            .with(|state, now| state.groups[self.group].vanish(self.member, now));
    }
}

impl Membership {
    /// Asks the broker as a member that is there: one that is paused by a fault hangs until that is
    /// over, before anything is asked.
    async fn ask<T>(
        &self,
        mut ask: impl FnMut(&mut State, Instant) -> Result<T, Refusal> + Send,
    ) -> Result<T, Refusal> {
        loop {
            let paused_until = {
                let answer = self.shared.with(|state, now| {
                    let member = state.groups[self.group].members.get(&self.member);
                    match member.ok_or(Refusal::MemberGone)?.presence {
                        Presence::Here => ask(state, now).map(Ok),
                        Presence::Paused { until } => Ok(Err(until)),
                        Presence::Gone => Err(Refusal::MemberCrashed),
                    }
                });
                match answer? {
                    Ok(answer) => return Ok(answer),
                    Err(until) => until,
                }
            };
            sleep_until(paused_until).await;
        }
    }

    fn set_paused(&self, partition: &Partition, epoch: Epoch, paused: bool) {
        self.shared.with(|state, _| {
            let Ok(slot) = state.catalog.slot(partition) else {
                return;
            };
            let Some(member) = state.groups[self.group].members.get_mut(&self.member) else {
                return;
            };
            if let Some(held) = member
                .held
                .get_mut(&slot)
                .filter(|held| held.epoch == epoch.0)
            {
                held.paused = paused;
                member.queue(slot);
            }
        });
    }

    fn error(&self, refusal: &Refusal, operation: &'static str) -> Error {
        let error = refusal
            .during(operation)
            .with_group(self.group_name.clone());
        let deleted = || {
            let state = self.shared.lock();
            let member = state.groups[self.group].members.get(&self.member);
            member.and_then(|member| member.deleted.clone())
        };
        match refusal {
            Refusal::StreamDeleted => match deleted() {
                Some(stream) => error.with_stream(stream),
                None => error,
            },
            _ => error,
        }
    }
}
