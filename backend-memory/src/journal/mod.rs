//! Persistence: one append-only file of checked frames.
//!
//! A frame is `length, crc32 of the length, crc32 of the body` (4 bytes each, little endian) and
//! the body, one [`JournalEntry`]. Opening the file applies the entries again. The length has a
//! checksum of its own, so that a damaged length in the middle is not taken for a torn tail, which
//! would silently drop all entries behind it.
//!
//! Writes block the caller under the broker's lock. This is intended: persistence is for laptops
//! and small services, one file keeps the order of changes, and a pool of threads would cost
//! determinism.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs4::fs_std::FileExt;

use crate::error::BrokerError;

mod entry;

pub(crate) use entry::{JournalEntry, JournalRecord, OffsetCommit};

const FILE: &str = "millstream-memory.journal";
const HEADER: usize = 12;

/// The journal file, open for appending and locked against a second broker.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    length: u64,
    sync: bool,
    /// Whether the file may end with a partial frame that could not be removed.
    broken: bool,
    frame: Vec<u8>,
}

impl Journal {
    /// Opens the journal in `folder`, which is created if needed, and passes each entry to `apply`,
    /// in order.
    pub(crate) fn open(
        folder: &Path,
        sync: bool,
        mut apply: impl FnMut(JournalEntry),
    ) -> Result<Self, BrokerError> {
        fs::create_dir_all(folder)?;
        let path = folder.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        lock(&file, folder)?;
        let bytes = fs::read(&path)?;
        let length = replay(&path, &bytes, &mut apply)?;
        if length < bytes.len() as u64 {
            tracing::warn!(
                file = %path.display(),
                bytes = bytes.len() as u64 - length,
                "removed an incomplete write at the end of the journal, which was never acknowledged"
            );
            file.set_len(length)?;
        }
        file.seek(SeekFrom::Start(length))?;
        Ok(Self {
            file,
            length,
            sync,
            broken: false,
            frame: Vec::new(),
        })
    }

    /// Appends an entry. When this returns, the entry survives the end of the process, and with
    /// `sync` a power failure.
    pub(crate) fn write(&mut self, entry: &JournalEntry) -> Result<(), BrokerError> {
        if self.broken {
            return Err(BrokerError::StorageBroken);
        }
        self.frame.clear();
        self.frame.resize(HEADER, 0);
        let frame = std::mem::take(&mut self.frame);
        let mut frame = postcard::to_extend(entry, frame)
            .map_err(|cause| BrokerError::from(std::io::Error::other(cause)))?;
        let length = ((frame.len() - HEADER) as u32).to_le_bytes();
        let body_check = crc32fast::hash(&frame[HEADER..]).to_le_bytes();
        frame[..4].copy_from_slice(&length);
        frame[4..8].copy_from_slice(&crc32fast::hash(&length).to_le_bytes());
        frame[8..12].copy_from_slice(&body_check);
        self.frame = frame;
        match self.append_frame() {
            Ok(()) => {
                self.length += self.frame.len() as u64;
                Ok(())
            }
            Err(cause) => {
                // A partial frame would make every frame behind it unreadable.
                let removed = self
                    .file
                    .set_len(self.length)
                    .and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
                self.broken = removed.is_err();
                Err(cause.into())
            }
        }
    }

    fn append_frame(&mut self) -> std::io::Result<()> {
        self.file.write_all(&self.frame)?;
        match self.sync {
            true => self.file.sync_data(),
            false => Ok(()),
        }
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

/// Applies all complete frames and returns where they end.
///
/// The bytes behind them are either an incomplete write (the file ends within the frame, it is the
/// last frame, or only zeros follow) or damage, which is `Corrupt`: entries behind it would be lost.
fn replay(
    path: &Path,
    bytes: &[u8],
    apply: &mut impl FnMut(JournalEntry),
) -> Result<u64, BrokerError> {
    let mut at = 0;
    while at < bytes.len() {
        let corrupt = || BrokerError::Corrupt {
            file: PathBuf::from(path),
            at: at as u64,
        };
        let rest = &bytes[at..];
        if rest.len() < HEADER || rest.iter().all(|byte| *byte == 0) {
            break;
        }
        let word =
            |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let length = word(0) as usize;
        if crc32fast::hash(&rest[..4]) != word(4) {
            return Err(corrupt());
        }
        let Some(body) = rest.get(HEADER..HEADER + length) else {
            break;
        };
        let is_last = rest.len() == HEADER + length;
        if crc32fast::hash(body) != word(8) {
            if is_last {
                break;
            }
            return Err(corrupt());
        }
        apply(postcard::from_bytes(body).map_err(|_| corrupt())?);
        at += HEADER + length;
    }
    Ok(at as u64)
}
