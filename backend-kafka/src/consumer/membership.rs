//! A member as the runtime holds it: the calls go to the polling thread, the events come from it.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use async_trait::async_trait;
use millstream_core::driver::{self, CheckpointUpdate, Event};
use millstream_core::{Epoch, Error, ErrorKind, Partition, Record, Result};
use tokio::sync::oneshot;

use super::bell::Bell;
use super::checkpoint::Vouched;
use super::mailbox::Mailbox;
use super::poller::Command;
use crate::native::record::unsendable;
use crate::transactions::{Transaction, TransactionalProducer};

#[derive(Debug)]
pub(super) struct Membership {
    pub(super) id: String,
    pub(super) commands: Commands,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) transactions: Arc<TransactionalProducer>,
}

/// The way to the polling thread. Its end is the member's.
#[derive(Debug)]
pub(super) struct Commands {
    pub(super) to: Sender<Command>,
    pub(super) bell: Arc<Bell>,
}

impl Commands {
    fn send(&self, command: Command) {
        // A thread that has ended answers nothing: the dropped reply tells.
        let _ = self.to.send(command);
        self.bell.ring();
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply));
        answer.await.ok()
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.send(Command::Leave(None));
    }
}

fn gone(operation: &'static str) -> Error {
    Error::new(ErrorKind::Fenced, operation, "the member has left")
}

#[async_trait]
impl driver::Membership for Membership {
    fn id(&self) -> &str {
        &self.id
    }

    async fn next(&self) -> Result<Vec<Event>> {
        let collected = poll_fn(|cx| self.mailbox.poll_collect(cx)).await?;
        if collected.was_full {
            self.commands.bell.ring();
        }
        Ok(collected.events)
    }

    async fn checkpoint(&self, marks: &[CheckpointUpdate]) -> Vec<Result<()>> {
        let asked = self.commands.ask(|reply| Command::Checkpoint {
            marks: marks.to_vec(),
            reply,
        });
        let gone =
            |mark: &CheckpointUpdate| Err(gone("checkpoint").with_partition(&mark.partition));
        asked
            .await
            .unwrap_or_else(|| marks.iter().map(gone).collect())
    }

    async fn publish(
        &self,
        stream: &str,
        records: &[Record],
        marks: &[CheckpointUpdate],
    ) -> Result<()> {
        if let Some(message) = records.iter().find_map(unsendable) {
            let error = Error::new(ErrorKind::Invalid, "publish", message);
            return Err(error.with_stream(stream));
        }
        let stream: Arc<str> = stream.into();
        let limits = self.transactions.limits(&stream).await;
        let asked = self.commands.ask(|reply| Command::Vouch {
            marks: marks.to_vec(),
            reply,
        });
        let vouched = asked.await.unwrap_or_else(|| Err(gone("publish")));
        let vouched = vouched.map_err(|error| error.with_stream(stream.clone()))?;
        let Vouched {
            offsets,
            member,
            assignments,
        } = vouched;
        let transaction = Transaction {
            stream: stream.clone(),
            limits,
            records: records.to_vec(),
            offsets,
            member,
        };
        let transactions = self.transactions.clone();
        // A dropped call is carried out all the same, as a whole or not.
        let published = tokio::task::spawn_blocking(move || transactions.publish(&transaction));
        match published.await {
            Ok(Ok(())) => {
                self.commands.send(Command::Published(marks.to_vec()));
                Ok(())
            }
            Ok(Err(failed)) => {
                if failed.member_is_gone {
                    self.commands.send(Command::Gone { assignments });
                }
                Err(failed.error.with_stream(stream.clone()))
            }
            Err(_) => {
                let message = "the tokio runtime shuts down";
                Err(Error::new(ErrorKind::Closed, "publish", message).with_stream(stream.clone()))
            }
        }
    }

    async fn release(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        let asked = self.commands.ask(|reply| Command::Release {
            partition: partition.clone(),
            epoch,
            reply,
        });
        let gone = || Err(gone("release").with_partition(partition));
        asked.await.unwrap_or_else(gone)
    }

    async fn complete(&self, partition: &Partition, _epoch: Epoch) -> Result<()> {
        let message = "partitions of Kafka never end";
        Err(Error::new(ErrorKind::Unsupported, "complete", message).with_partition(partition))
    }

    fn pause(&self, partition: &Partition, epoch: Epoch) {
        self.mailbox.pause(partition, epoch);
        let partition = partition.clone();
        self.commands.send(Command::Pause(partition, epoch));
    }

    fn resume(&self, partition: &Partition, epoch: Epoch) {
        self.mailbox.resume(partition, epoch);
        let partition = partition.clone();
        self.commands.send(Command::Resume(partition, epoch));
    }

    async fn leave(&self) -> Result<()> {
        // Answered when the client has ended; a thread that has ended already has left.
        self.commands.ask(|reply| Command::Leave(Some(reply))).await;
        Ok(())
    }
}
