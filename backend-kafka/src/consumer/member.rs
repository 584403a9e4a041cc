//! The runtime's handle of a member: it passes calls to the polling thread, and events back.

use std::future::poll_fn;
use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::driver::{self, CheckpointUpdate, Event};
use millstream_core::{Epoch, Error, ErrorKind, Partition, Record, Result};

use super::command::{Command, Commands, PreparedTransaction};
use super::event_queue::EventQueue;
use crate::background;
use crate::native::record::unsendable;
use crate::transactions::{Transaction, TransactionalProducer};

#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) commands: Commands,
    pub(super) events: Arc<EventQueue>,
    pub(super) producer: Arc<TransactionalProducer>,
}

fn gone(operation: &'static str) -> Error {
    Error::new(ErrorKind::Fenced, operation, "the member has left")
}

#[async_trait]
impl driver::Membership for Member {
    fn id(&self) -> &str {
        &self.id
    }

    async fn next(&self) -> Result<Vec<Event>> {
        let collected = poll_fn(|cx| self.events.poll_collect(cx)).await?;
        if collected.was_full {
            self.commands.waker.wake();
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
        let limits = self.producer.limits(&stream).await;
        let asked = self.commands.ask(|reply| Command::PrepareTransaction {
            marks: marks.to_vec(),
            reply,
        });
        let prepared = asked.await.unwrap_or_else(|| Err(gone("publish")));
        let prepared = prepared.map_err(|error| error.with_stream(stream.clone()))?;
        let PreparedTransaction {
            offsets,
            member,
            assignments,
        } = prepared;
        let transaction = Transaction {
            stream: stream.clone(),
            limits,
            records: records.to_vec(),
            offsets,
            member,
        };
        let producer = self.producer.clone();
        // If the call is dropped, the transaction still runs to its end, stored or aborted. The records are dropped
        // after the result is sent: nobody waits for that.
        let published = background::run_and_drop("publish", move || {
            let published = producer.publish(&transaction);
            (published, transaction)
        });
        let published = published.await;
        match published.map_err(|error| error.with_stream(stream.clone()))? {
            Ok(()) => {
                self.commands
                    .send(Command::TransactionStored(marks.to_vec()));
                Ok(())
            }
            Err(failed) => {
                if failed.member_is_gone {
                    self.commands.send(Command::Gone { assignments });
                }
                Err(failed.error.with_stream(stream.clone()))
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
        self.events.pause(partition, epoch);
        let partition = partition.clone();
        self.commands.send(Command::Pause(partition, epoch));
    }

    fn resume(&self, partition: &Partition, epoch: Epoch) {
        self.events.resume(partition, epoch);
        let partition = partition.clone();
        self.commands.send(Command::Resume(partition, epoch));
    }

    async fn leave(&self) -> Result<()> {
        // The reply arrives when the client has ended. A thread that has ended has already left.
        self.commands.ask(|reply| Command::Leave(Some(reply))).await;
        Ok(())
    }
}
