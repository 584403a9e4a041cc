//! The file of a journal, as a trait so that tests can make it fail.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;

pub(super) trait Storage: Debug + Send {
    /// Appends all bytes, or fails with some of them written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Waits until the disk has everything that was appended.
    fn sync(&mut self) -> io::Result<()>;

    /// Waits until the disk has the name of the file, and the names of its ancestor folders. Without it, a
    /// power failure may lose the file itself.
    fn sync_name(&mut self) -> io::Result<()>;

    /// Removes everything from `length` on.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// A file, and the folders that are synced for its name: its own folder first, then each one's parent.
#[derive(Debug)]
pub(super) struct NamedFile {
    pub(super) file: File,
    pub(super) folders: Vec<PathBuf>,
}

impl Storage for NamedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_name(&mut self) -> io::Result<()> {
        // On other systems, folders cannot be opened, and the file system keeps names in its own log.
        if cfg!(not(unix)) {
            return Ok(());
        }
        let mut folders = self.folders.iter();
        folders.try_for_each(|folder| File::open(folder)?.sync_all())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length))?;
        Ok(())
    }
}
