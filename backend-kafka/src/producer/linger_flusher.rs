//! A thread that flushes records which have lingered long enough.
//!
//! Records that have waited for a response must not linger again in librdkafka. Only a flush makes it send them at
//! once, for as long as the flush lasts, and it affects all records of the client. The delivery thread must serve
//! reports during that time.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use tokio::sync::mpsc::Sender;

use super::client::ProducerClient;

pub(super) struct LingerFlusher {
    requests: SyncSender<()>,
}

impl LingerFlusher {
    /// Starts the thread. It ends when this value is dropped, and keeps its clone of `alive` until it has released the
    /// client.
    pub(super) fn start(client: Arc<ProducerClient>, alive: Sender<()>) -> io::Result<Self> {
        let (requests, requested) = sync_channel(1);
        let thread = thread::Builder::new().name("kafka-flusher".into());
        thread.spawn(move || {
            while requested.recv().is_ok() {
                client.flush_lingering();
            }
            drop(client);
            drop(alive);
        })?;
        Ok(Self { requests })
    }

    /// Requests a flush.
    pub(super) fn request(&self) {
        // A request that the thread has not received yet covers these records, too.
        let _ = self.requests.try_send(());
    }
}
