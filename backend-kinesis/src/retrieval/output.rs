//! Delivers events to a channel with room, and not while paused. During a pause, only the lag is reported.

use std::time::Duration;

use millstream_core::driver::StoredRecord;
use tokio::select;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::ReadEvent;

/// The interval at which the lag of a paused shard is reported and read.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// The minimum age of waiting records: zero would mean that there are none.
const LEAST_AGE: Duration = Duration::from_millis(1);

/// The reader is done: the last event was delivered, or the receiver is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done;

/// The reader's end of its caller's channel.
#[derive(Debug)]
pub(super) struct Output<T> {
    tag: T,
    to: mpsc::Sender<(T, ReadEvent)>,
    paused: watch::Receiver<bool>,
    /// The age of the oldest record that the caller does not have, zero if there was none, and when
    /// that was seen. `None` if it is not known.
    left: Option<(Duration, Instant)>,
}

impl<T: Clone> Output<T> {
    pub(super) fn new(
        tag: T,
        to: mpsc::Sender<(T, ReadEvent)>,
        paused: watch::Receiver<bool>,
    ) -> Self {
        Self {
            tag,
            to,
            paused,
            left: None,
        }
    }

    /// Records the age of the oldest record that the caller does not have, and when that was seen; zero if there was
    /// none.
    pub(super) fn note_left(&mut self, age: Option<Duration>, seen: Instant) {
        self.left = age.map(|age| (age, seen));
    }

    /// Waits while paused. Meanwhile, reports the growing age of the waiting records.
    pub(super) async fn unpaused(&mut self) -> Result<(), Done> {
        while *self.paused.borrow_and_update() {
            // Waits for room instead of calling `offer`: of many paused shards, the same few would always be reported.
            let to = &self.to;
            let room = async {
                sleep(LAG_INTERVAL).await;
                to.reserve().await
            };
            let room = select! {
                changed = self.paused.changed() => {
                    changed.map_err(|_| Done)?;
                    continue;
                }
                room = room => room.map_err(|_| Done)?,
            };
            if let Some((age, seen)) = self.left {
                let since = if age.is_zero() { age } else { seen.elapsed() };
                room.send((self.tag.clone(), ReadEvent::Behind(age + since)));
            }
        }
        Ok(())
    }

    /// Waits while paused and records are known to wait. Until some do, a paused shard is
    /// polled too: no other source has its lag.
    pub(super) async fn may_ask(&mut self) -> Result<(), Done> {
        match self.left {
            Some((age, _)) if !age.is_zero() => self.unpaused().await,
            _ => Ok(()),
        }
    }

    /// Waits until the next request is due. During a pause it is due later, and at once when the pause ends.
    pub(super) async fn until_due(&mut self, due: Instant) -> Result<(), Done> {
        sleep_until(due).await;
        if *self.paused.borrow_and_update() {
            select! {
                changed = self.paused.changed() => changed.map_err(|_| Done)?,
                () = sleep_until(due + LAG_INTERVAL) => {}
            }
        }
        Ok(())
    }

    /// Returns whether the partition is paused, now and later.
    pub(super) fn paused(&self) -> watch::Receiver<bool> {
        self.paused.clone()
    }

    /// Delivers an event. Waits for room, and until there is no pause.
    pub(super) async fn give(&mut self, read: ReadEvent) -> Result<(), Done> {
        if let ReadEvent::Records { records, .. } = &read {
            let age = |first: &StoredRecord| first.timestamp.elapsed().unwrap_or_default();
            let oldest = records.first().map(|first| age(first).max(LEAST_AGE));
            self.note_left(oldest, Instant::now());
        }
        loop {
            self.unpaused().await?;
            let room = self.to.reserve().await.map_err(|_| Done)?;
            // A pause may have begun while there was no room.
            if !*self.paused.borrow() {
                room.send((self.tag.clone(), read));
                return Ok(());
            }
        }
    }

    /// Delivers an event that may be dropped if there is no room. Returns whether there was room.
    pub(super) fn offer(&mut self, read: ReadEvent) -> bool {
        self.to.try_send((self.tag.clone(), read)).is_ok()
    }

    /// Delivers the last event.
    pub(super) async fn finish(&mut self, read: ReadEvent) -> Done {
        let _ = self.give(read).await;
        Done
    }
}
