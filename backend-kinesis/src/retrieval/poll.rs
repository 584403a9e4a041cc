//! Polling: repeated GetRecords.

use std::time::{Duration, SystemTime};

use millstream_core::ErrorKind;
use tokio::time::Instant;

use super::RetrievalMode;
use super::output::Done;
use super::shard_reader::{OnPause, ShardReader, Taken};
use super::until::Until;

impl<T: Clone> ShardReader<T> {
    /// Polls from the pinned iterator on, if there is one.
    pub(super) async fn poll(&mut self, until: Until) -> Result<(), Done> {
        self.poll_pinned(until).await?;
        self.poll_until(until).await
    }

    /// Polls from the pinned iterator on, if there is one, as long as it is valid.
    pub(super) async fn poll_pinned(&mut self, until: Until) -> Result<(), Done> {
        while let Some(pinned) = self.cursor.pinned() {
            self.poll_from(pinned, until).await?;
            if self.is_over(until) {
                break;
            }
        }
        Ok(())
    }

    /// Polls from the reader's position on.
    pub(super) async fn poll_until(&mut self, until: Until) -> Result<(), Done> {
        while !self.is_over(until) {
            self.output.may_ask().await?;
            let from = self.cursor.look();
            match self.source.iterator(&from).await {
                Ok(iterator) => self.poll_from(iterator, until).await?,
                Err(error) => {
                    self.cursor.refuse(&from, error.kind());
                    self.on_error(error).await?;
                }
            }
        }
        Ok(())
    }

    fn is_over(&self, until: Until) -> bool {
        match until {
            Until::Record => self.cursor.has_passed(),
            Until::Quiet => self.cursor.has_passed() || self.cursor.is_quiet(),
            Until::Subscribable => match &self.settings.mode {
                RetrievalMode::FanOut(consumer) => consumer.arn().is_some(),
                RetrievalMode::Polling => false,
            },
            Until::End => false,
        }
    }

    /// Polls as long as each response has a next iterator.
    pub(super) async fn poll_from(
        &mut self,
        mut iterator: String,
        until: Until,
    ) -> Result<(), Done> {
        loop {
            self.output.may_ask().await?;
            let mut room = self.demand.room().await;
            let most = self.limit.get().min(self.demand.records());
            let (begun, asked) = (Instant::now(), SystemTime::now());
            let answer = match self.source.records(&iterator, most).await {
                Ok(answer) => {
                    self.limit.succeeded();
                    answer
                }
                Err(error) => {
                    drop(room);
                    if error.kind() == ErrorKind::Timeout {
                        self.limit.timed_out();
                    }
                    let may_pass = error.is_retryable();
                    self.on_error(error).await?;
                    match may_pass {
                        true => continue,
                        false => return Ok(()),
                    }
                }
            };
            let is_at_tip = match answer.behind {
                Some(behind) => behind == Duration::ZERO,
                None => answer.records.is_empty(),
            };
            let idle = is_at_tip.then_some(self.settings.poll_interval);
            let bytes = answer.bytes();
            room.shrink(bytes);
            self.demand.received(answer.records.len(), bytes);
            let wait = self.pace.after(bytes, idle, Instant::now());
            let next = answer.next.clone();
            let taken = self
                .take(answer, asked, Instant::now(), OnPause::Drop)
                .await?;
            drop(room);
            if taken == Taken::Some {
                return self.output.unpaused().await;
            }
            match next {
                Some(next) => iterator = next,
                None => return self.end().await,
            }
            if self.is_over(until) {
                self.cursor.pin(iterator);
                return Ok(());
            }
            self.output.until_due(begun + wait).await?;
        }
    }
}
