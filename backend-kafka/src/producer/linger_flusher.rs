//! A thread that sends records on their way which have lingered enough.
//!
//! What has waited for an answer is not to linger once more in librdkafka. Only a flush tells it so, for
//! as long as the flush lasts, and for all records that it has. The delivery thread has reports to take
//! meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use tokio::sync::mpsc::Sender;

use super::Native;

pub(super) struct LingerFlusher {
    wants: SyncSender<()>,
}

impl LingerFlusher {
    /// Ends when this is dropped. The thread has a share of `alive` until it is done with the client.
    pub(super) fn start(native: Arc<Native>, alive: Sender<()>) -> io::Result<Self> {
        let (wants, wanted) = sync_channel(1);
        let thread = thread::Builder::new().name("kafka-flusher".into());
        thread.spawn(move || {
            while wanted.recv().is_ok() {
                native.flush_lingering();
            }
            drop(native);
            drop(alive);
        })?;
        Ok(Self { wants })
    }

    pub(super) fn flush_lingering(&self) {
        // One that is still to begin is for these records too.
        let _ = self.wants.try_send(());
    }
}
