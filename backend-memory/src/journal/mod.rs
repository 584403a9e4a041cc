//! Persistence: one append-only file. Opening it applies the entries again.
//!
//! Writes block the caller under the broker's lock. This is intended: persistence is for laptops
//! and small services, one file keeps the order of changes, and a pool of threads would cost
//! determinism.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fs4::fs_std::FileExt;
use millstream_core::telemetry::{Causes, event};

use crate::error::BrokerError;

mod entry;
mod frame;
mod storage;

pub(crate) use entry::{JournalEntry, JournalRecord, OffsetCommit};

use frame::MAGIC;
use storage::{NamedFile, Storage};

const FILE: &str = "millstream-memory.journal";

/// The journal file, open for appending and locked against a second broker.
#[derive(Debug)]
pub(crate) struct Journal {
    storage: Box<dyn Storage>,
    path: PathBuf,
    length: u64,
    sync: bool,
    /// Whether the file may end with a partial frame, which must be removed before the next write.
    has_partial_frame: bool,
    /// Whether the last write failed, so that an outage is logged once.
    failing: bool,
    frame: Vec<u8>,
}

impl Journal {
    /// Opens the journal in `folder`, which is created if needed, and passes each entry to `apply`,
    /// in order.
    pub(crate) fn open(
        folder: &Path,
        sync: bool,
        apply: impl FnMut(JournalEntry),
    ) -> Result<Self, BrokerError> {
        let folders = create_folder(folder)?;
        let path = folder.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        lock(&file, folder)?;
        // Through the locked handle: on Windows no other handle may read a locked file. No test on another
        // system can show that.
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let length = frame::replay(&bytes, apply).map_err(|damage| BrokerError::Corrupt {
            file: path.clone(),
            at: damage.at,
        })?;
        if length < bytes.len() as u64 {
            event!(
                warn, "millstream.memory.journal.truncated", file = %path.display(),
                bytes = bytes.len() as u64 - length,
                "removed an incomplete write at the end of the journal, which was never acknowledged"
            );
        }
        Self::over(NamedFile { file, folders }, path, sync, length)
    }

    /// Creates a journal of a file whose first `length` bytes are complete. With `sync`, the file and its name
    /// are on the disk when this returns.
    fn over(
        storage: impl Storage + 'static,
        path: PathBuf,
        sync: bool,
        length: u64,
    ) -> Result<Self, BrokerError> {
        let mut storage: Box<dyn Storage> = Box::new(storage);
        storage.truncate(length)?;
        if length == 0 {
            storage.append(&MAGIC)?;
        }
        if sync {
            storage.sync()?;
            storage.sync_name()?;
        }
        Ok(Self {
            storage,
            path,
            length: length.max(MAGIC.len() as u64),
            sync,
            has_partial_frame: false,
            failing: false,
            frame: Vec::new(),
        })
    }

    /// Appends an entry. When this returns, the entry survives the end of the process, and with
    /// `sync` a power failure.
    ///
    /// A failure stores nothing and can be retried. The first one is logged with its cause, because
    /// callers that retry report it much later.
    pub(crate) fn write(&mut self, entry: &JournalEntry) -> Result<(), BrokerError> {
        let written = self.append(entry);
        let file = self.path.display();
        match &written {
            Ok(()) if self.failing => event!(
                info, "millstream.memory.journal.recovered", %file,
                "the journal can be written again"
            ),
            Err(reason) if !self.failing => event!(
                warn, "millstream.memory.journal.failed", %file, reason = %Causes(reason),
                "cannot write the journal; nothing is stored until this is resolved"
            ),
            _ => {}
        }
        self.failing = written.is_err();
        Ok(written?)
    }

    fn append(&mut self, entry: &JournalEntry) -> io::Result<()> {
        if self.has_partial_frame {
            self.remove_partial_frame()?;
        }
        frame::encode(entry, &mut self.frame)?;
        let mut appended = self.storage.append(&self.frame);
        if self.sync && appended.is_ok() {
            appended = self.storage.sync();
        }
        match appended {
            Ok(()) => self.length += self.frame.len() as u64,
            Err(_) => {
                self.has_partial_frame = true;
                // If this fails too, the next write tries again.
                let _ = self.remove_partial_frame();
            }
        }
        appended
    }

    /// Removes a partial frame, which would make every frame after it unreadable.
    fn remove_partial_frame(&mut self) -> io::Result<()> {
        self.storage.truncate(self.length)?;
        self.has_partial_frame = false;
        Ok(())
    }
}

/// Locks the file. Returns `Locked` if another broker, of this or another process, has it open.
fn lock(file: &File, folder: &Path) -> Result<(), BrokerError> {
    match FileExt::try_lock_exclusive(file)? {
        true => Ok(()),
        false => Err(BrokerError::Locked {
            folder: folder.to_owned(),
        }),
    }
}

/// Creates a folder and its missing ancestors. Returns the folders that may contain a new name:
/// the folder itself, its parent, and so on up to one that existed before.
fn create_folder(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let is_new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let new = folder.ancestors().take_while(is_new).count();
    fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    // The parent is always synced: an earlier start may have ended before it was.
    let with_new_names = folder.ancestors().take(new.max(1) + 1);
    Ok(with_new_names.map(Path::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use millstream_core::{Error, ErrorKind};
    use tracing::field::{Field, Visit};
    use tracing::subscriber::with_default;
    use tracing::{Dispatch, Level, Metadata, Subscriber, span};

    use super::*;

    /// A file on a disk of `capacity` bytes.
    #[derive(Debug, Clone, Default)]
    struct SmallDisk(Arc<Mutex<Disk>>);

    #[derive(Debug, Default)]
    struct Disk {
        bytes: Vec<u8>,
        capacity: usize,
        truncate_fails: bool,
        calls: Vec<&'static str>,
    }

    impl SmallDisk {
        fn set(&self, capacity: usize, truncate_fails: bool) {
            let mut disk = self.0.lock().unwrap();
            disk.capacity = capacity;
            disk.truncate_fails = truncate_fails;
        }

        fn calls(&self) -> Vec<&'static str> {
            self.0.lock().unwrap().calls.clone()
        }

        fn entries(&self) -> usize {
            let mut entries = 0;
            let disk = self.0.lock().unwrap();
            let length = frame::replay(&disk.bytes, |_| entries += 1).unwrap();
            assert_eq!(length, disk.bytes.len() as u64, "no partial frame is left");
            entries
        }
    }

    impl Storage for SmallDisk {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            let mut disk = self.0.lock().unwrap();
            disk.calls.push("append");
            let room = disk.capacity - disk.bytes.len();
            disk.bytes.extend(&bytes[..bytes.len().min(room)]);
            match bytes.len() <= room {
                true => Ok(()),
                false => {
                    let full = io::Error::from(io::ErrorKind::StorageFull);
                    let error = Error::new(ErrorKind::Unavailable, "append", "only a part fits");
                    Err(io::Error::other(error.with_source(full)))
                }
            }
        }

        fn sync(&mut self) -> io::Result<()> {
            self.0.lock().unwrap().calls.push("sync");
            Ok(())
        }

        fn sync_name(&mut self) -> io::Result<()> {
            self.0.lock().unwrap().calls.push("sync name");
            Ok(())
        }

        fn truncate(&mut self, length: u64) -> io::Result<()> {
            let mut disk = self.0.lock().unwrap();
            if disk.truncate_fails {
                return Err(io::Error::other("truncate failed"));
            }
            disk.bytes.truncate(length as usize);
            Ok(())
        }
    }

    /// The level and the reason of each logged event.
    #[derive(Debug, Clone, Default)]
    struct Log(Arc<Mutex<Vec<(Level, String)>>>);

    #[derive(Default)]
    struct Reason(String);

    impl Visit for Reason {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            if field.name() == "reason" {
                self.0 = format!("{value:?}");
            }
        }
    }

    impl Subscriber for Log {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let mut reason = Reason::default();
            event.record(&mut reason);
            let logged = (*event.metadata().level(), reason.0);
            self.0.lock().unwrap().push(logged);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    fn entry() -> JournalEntry {
        JournalEntry::StreamCreated {
            name: "a stream".into(),
            public_id: "an id".into(),
            partitions: 3,
        }
    }

    #[test]
    fn a_full_disk_is_logged_once_with_its_cause() {
        let (disk, log) = (SmallDisk::default(), Log::default());
        // With only one subscriber, `tracing` asks the first thread at an event whether the event is
        // enabled, and that may be the thread of another test.
        let _other = Dispatch::new(log.clone());
        disk.set(1 << 20, false);
        let mut journal = Journal::over(disk.clone(), "j".into(), false, 0).unwrap();
        with_default(log.clone(), || {
            journal.write(&entry()).unwrap();
            let used = disk.0.lock().unwrap().bytes.len();
            disk.set(used + 5, false);
            for _ in 0..3 {
                let error = journal.write(&entry()).unwrap_err().during("send");
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                let causes = format!("{error:?}");
                assert!(causes.contains("no storage space"), "{causes}");
                assert_eq!(disk.entries(), 1);
            }
            disk.set(1 << 20, false);
            journal.write(&entry()).unwrap();
            assert_eq!(disk.entries(), 2);
        });
        let logged = log.0.lock().unwrap().clone();
        let levels: Vec<Level> = logged.iter().map(|(level, _)| *level).collect();
        assert_eq!(levels, [Level::WARN, Level::INFO]);
        assert!(logged[0].1.contains("no storage space"), "{logged:?}");
    }

    #[test]
    fn a_synced_journal_has_its_name_on_the_disk_before_the_first_write() {
        let disk = SmallDisk::default();
        disk.set(1 << 20, false);
        let mut journal = Journal::over(disk.clone(), "j".into(), true, 0).unwrap();
        assert_eq!(disk.calls(), ["append", "sync", "sync name"]);
        journal.write(&entry()).unwrap();
        assert_eq!(disk.calls()[3..], ["append", "sync"]);

        let disk = SmallDisk::default();
        disk.set(1 << 20, false);
        let mut journal = Journal::over(disk.clone(), "j".into(), false, 0).unwrap();
        journal.write(&entry()).unwrap();
        assert_eq!(disk.calls(), ["append", "append"]);
    }

    #[test]
    fn every_folder_with_a_new_name_is_synced() {
        let root = tempfile::tempdir().unwrap();
        let top = root.path().canonicalize().unwrap();
        let folder = top.join("new").join("folder");
        let names = [folder.clone(), top.join("new"), top.clone()];
        assert_eq!(create_folder(&folder).unwrap(), names);
        // The folder may exist while its name is not on the disk.
        assert_eq!(create_folder(&folder).unwrap(), names[..2]);
    }

    /// The sync of a folder leaves no trace, but the sync of a removed folder fails.
    #[cfg(unix)]
    #[test]
    fn each_of_its_folders_is_opened_to_be_synced() {
        let root = tempfile::tempdir().unwrap();
        let folders = [root.path().to_owned(), root.path().join("gone")];
        for (folders, is_synced) in [(&folders[..1], true), (&folders[..], false)] {
            let file = tempfile::tempfile().unwrap();
            let folders = folders.to_vec();
            let mut named = NamedFile { file, folders };
            assert_eq!(named.sync_name().is_ok(), is_synced);
        }
    }

    #[test]
    fn a_partial_frame_is_removed_before_the_next_write() {
        let disk = SmallDisk::default();
        disk.set(1 << 20, false);
        let mut journal = Journal::over(disk.clone(), "j".into(), true, 0).unwrap();
        journal.write(&entry()).unwrap();
        let used = disk.0.lock().unwrap().bytes.len();
        disk.set(used + 5, true);
        assert!(journal.write(&entry()).is_err());
        disk.set(1 << 20, true);
        assert!(journal.write(&entry()).is_err());
        disk.set(1 << 20, false);
        journal.write(&entry()).unwrap();
        assert_eq!(disk.entries(), 2);
    }
}
