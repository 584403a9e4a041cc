//! Polling: GetRecords, again and again.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};

use super::hand::Done;
use super::reading::Reading;

impl<T: Clone> Reading<T> {
    /// Polls from the pinned iterator, if there is one, until a record is met.
    pub(super) async fn poll_to_first(&mut self) -> Result<(), Done> {
        match self.place.pinned() {
            Some(pinned) => self.poll_from(pinned, true).await,
            None => Ok(()),
        }
    }

    /// Polls until there is nothing more to do.
    pub(super) async fn poll(&mut self) -> Result<(), Done> {
        if let Some(pinned) = self.place.pinned() {
            self.poll_from(pinned, false).await?;
        }
        loop {
            self.hand.unpaused().await?;
            let from = self.place.look();
            match self.source.iterator(&from).await {
                Ok(iterator) => self.poll_from(iterator, false).await?,
                Err(error) => {
                    self.place.refuse(&from, error.kind());
                    self.heed(error).await?;
                }
            }
        }
    }

    /// Polls while one iterator leads to the next; `to_first`: until a record is met.
    async fn poll_from(&mut self, mut iterator: String, to_first: bool) -> Result<(), Done> {
        loop {
            self.hand.unpaused().await?;
            let (begun, asked) = (Instant::now(), SystemTime::now());
            let answer = match self.source.records(&iterator).await {
                Ok(answer) => answer,
                Err(error) => {
                    let may_pass = error.is_retryable();
                    self.heed(error).await?;
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
            let wait = self.pace.after(answer.bytes(), idle);
            let next = answer.next.clone();
            self.take(answer, asked).await?;
            match next {
                Some(next) => iterator = next,
                None => return self.end().await,
            }
            if to_first && self.place.has_passed() {
                return Ok(());
            }
            sleep_until(begun + wait).await;
        }
    }
}
