//! Handing on: to a channel with room, and not while paused.

use tokio::sync::{mpsc, watch};

use super::ReadEvent;

/// Nothing more is to be done: the last words were said, or nobody listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done;

/// The reader's end of its caller's channel.
#[derive(Debug)]
pub(super) struct Hand<T> {
    tag: T,
    to: mpsc::Sender<(T, ReadEvent)>,
    paused: watch::Receiver<bool>,
}

impl<T: Clone> Hand<T> {
    pub(super) fn new(
        tag: T,
        to: mpsc::Sender<(T, ReadEvent)>,
        paused: watch::Receiver<bool>,
    ) -> Self {
        Self { tag, to, paused }
    }

    /// Waits while paused.
    pub(super) async fn unpaused(&mut self) -> Result<(), Done> {
        let unpaused = self.paused.wait_for(|paused| !paused).await;
        unpaused.map(|_| ()).map_err(|_| Done)
    }

    /// Waits for room, and until no pause is under way.
    pub(super) async fn give(&mut self, read: ReadEvent) -> Result<(), Done> {
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

    /// Hands on what is no loss if there is no room for it; whether there was.
    pub(super) fn offer(&mut self, read: ReadEvent) -> bool {
        self.to.try_send((self.tag.clone(), read)).is_ok()
    }

    /// Says the last word.
    pub(super) async fn finish(&mut self, read: ReadEvent) -> Done {
        let _ = self.give(read).await;
        Done
    }
}
