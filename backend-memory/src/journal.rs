//! Persistence: one append-only file of checked frames.
//!
//! A frame is `length, crc32 of the length, crc32 of the body` (4 bytes each, little endian) and
//! the body, one [`Change`]. Reading the file back brings about the same changes again. The length
//! has a check of its own, so that a damaged length in the middle is not taken for a torn end,
//! which would drop all that follows without a word.
//!
//! Writes block the caller under the broker's lock. That is meant: this is for laptops and small
//! services, one file keeps the order of changes without further thought, and a pool of threads
//! would cost determinism.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fs4::fs_std::FileExt;
use millstream_core::{Headers, Record};
use serde::{Deserialize, Serialize};

use crate::clock::{to_millis, to_time};
use crate::group::Place;
use crate::ids::{GroupId, PartitionId, Slot, StreamId};
use crate::log::Entry;
use crate::refusal::Refusal;

const FILE: &str = "millstream-memory.journal";
const HEADER: usize = 12;

/// What can happen to a broker. New kinds are added at the end: the place is what the file holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Change {
    /// The folder was opened once more.
    Opened,
    Created {
        name: String,
        partitions: usize,
    },
    Deleted {
        stream: StreamId,
    },
    Split {
        stream: StreamId,
        parent: PartitionId,
    },
    Merged {
        stream: StreamId,
        one: PartitionId,
        other: PartitionId,
    },
    Grown {
        stream: StreamId,
        partitions: usize,
    },
    Stored {
        stream: StreamId,
        records: Vec<StoredRecord>,
    },
    Group {
        name: String,
    },
    RecordMetadata {
        group: GroupId,
        stream: StreamId,
        places: Vec<Place>,
    },
    Checkpointed {
        group: GroupId,
        marks: Vec<Marked>,
    },
    Completed {
        group: GroupId,
        slot: Slot,
        end: u64,
    },
    /// Records and progress in one step.
    Published {
        group: GroupId,
        marks: Vec<Marked>,
        stream: StreamId,
        records: Vec<StoredRecord>,
    },
}

/// A partition, the epoch that moves its progress, and the first record that is not settled.
pub(crate) type Marked = (Slot, u64, u64);

impl Change {
    /// When the newest record of a change was stored.
    pub(crate) fn stored_at(&self) -> Option<i64> {
        match self {
            Self::Stored { records, .. } | Self::Published { records, .. } => {
                records.iter().map(|record| record.stored_at).max()
            }
            _ => None,
        }
    }

    /// The records of a change that stores some.
    pub(crate) fn into_records(self) -> Vec<Record> {
        match self {
            Self::Stored { records, .. } => {
                records.into_iter().map(StoredRecord::into_record).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A record in the journal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredRecord {
    partition: PartitionId,
    key: Option<Bytes>,
    payload: Bytes,
    headers: Vec<(String, Bytes)>,
    timestamp: i64,
    stored_at: i64,
}

impl StoredRecord {
    pub(crate) fn new(partition: PartitionId, entry: &Entry) -> Self {
        let header = |(name, value): (&str, Option<&Bytes>)| {
            (name.to_owned(), value.cloned().unwrap_or_default())
        };
        Self {
            partition,
            key: entry.key.clone(),
            payload: entry.payload.clone(),
            headers: entry.headers.iter().map(header).collect(),
            timestamp: entry.timestamp,
            stored_at: entry.stored_at,
        }
    }

    /// A record that is stored at `stored_at`.
    pub(crate) fn of(partition: PartitionId, record: &Record, stored_at: i64) -> Self {
        let header = |(name, value): (&str, Option<&Bytes>)| {
            (name.to_owned(), value.cloned().unwrap_or_default())
        };
        Self {
            partition,
            key: record.key.clone(),
            payload: record.payload.clone(),
            headers: record.headers.iter().map(header).collect(),
            timestamp: record.timestamp.map_or(stored_at, to_millis),
            stored_at,
        }
    }

    pub(crate) fn into_entry(self) -> (PartitionId, Entry) {
        let entry = Entry {
            key: self.key,
            payload: self.payload,
            headers: Headers::from_iter(self.headers),
            timestamp: self.timestamp,
            stored_at: self.stored_at,
        };
        (self.partition, entry)
    }

    fn into_record(self) -> Record {
        // A time that the broker gave is given anew when the record is sent again.
        let own_time = self.timestamp != self.stored_at;
        let (_, entry) = self.into_entry();
        let mut record = Record::new(entry.payload);
        record.key = entry.key;
        record.headers = entry.headers;
        record.timestamp = own_time.then(|| to_time(entry.timestamp));
        record
    }
}

/// The file, open for appending and locked against a second broker.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    length: u64,
    sync: bool,
    /// Whether the file may hold half a frame that could not be taken back.
    broken: bool,
    frame: Vec<u8>,
}

impl Journal {
    /// Opens the journal in `folder`, made if needed, and hands each change in it to `apply`, in
    /// order.
    pub(crate) fn open(
        folder: &Path,
        sync: bool,
        mut apply: impl FnMut(Change),
    ) -> Result<Self, Refusal> {
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
                "took back a write at the journal's end that was cut off and never acknowledged"
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

    /// Appends a change; when this answers, it survives the process, and with `sync` a power
    /// failure.
    pub(crate) fn write(&mut self, change: &Change) -> Result<(), Refusal> {
        if self.broken {
            return Err(Refusal::StorageBroken);
        }
        self.frame.clear();
        self.frame.resize(HEADER, 0);
        let frame = std::mem::take(&mut self.frame);
        let mut frame = postcard::to_extend(change, frame)
            .map_err(|cause| Refusal::from(std::io::Error::other(cause)))?;
        let length = ((frame.len() - HEADER) as u32).to_le_bytes();
        let body_check = crc32fast::hash(&frame[HEADER..]).to_le_bytes();
        frame[..4].copy_from_slice(&length);
        frame[4..8].copy_from_slice(&crc32fast::hash(&length).to_le_bytes());
        frame[8..12].copy_from_slice(&body_check);
        self.frame = frame;
        match self.put() {
            Ok(()) => {
                self.length += self.frame.len() as u64;
                Ok(())
            }
            Err(cause) => {
                // Half a frame in the middle would make everything behind it unreadable.
                let taken_back = self
                    .file
                    .set_len(self.length)
                    .and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
                self.broken = taken_back.is_err();
                Err(cause.into())
            }
        }
    }

    fn put(&mut self) -> std::io::Result<()> {
        self.file.write_all(&self.frame)?;
        match self.sync {
            true => self.file.sync_data(),
            false => Ok(()),
        }
    }
}

/// Refuses a folder that another broker, of this or another process, has open.
fn lock(file: &File, folder: &Path) -> Result<(), Refusal> {
    match FileExt::try_lock_exclusive(file)? {
        true => Ok(()),
        false => Err(Refusal::Locked {
            folder: folder.to_owned(),
        }),
    }
}

/// Applies all whole frames and answers where they end.
///
/// What is behind them is either a write that was cut off (the file ends within it, or it is the
/// last frame, or nothing but zeros) or damage, which is refused: records behind it would be lost.
fn replay(path: &Path, bytes: &[u8], apply: &mut impl FnMut(Change)) -> Result<u64, Refusal> {
    let mut at = 0;
    while at < bytes.len() {
        let corrupt = || Refusal::Corrupt {
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
