//! The file under a journal, as a trait so that tests can make it fail.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

pub(super) trait Storage: Debug + Send {
    /// Appends all bytes, or fails with some of them written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Waits until the disk has everything that was appended.
    fn sync(&mut self) -> io::Result<()>;

    /// Removes everything from `length` on.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

impl Storage for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.seek(SeekFrom::Start(length))?;
        Ok(())
    }
}
