//! The format of the file: a magic number, and frames that each hold one entry.
//!
//! A frame is `length, crc32 of the length, crc32 of the body` (4 bytes each, little endian) and
//! the body. The length has its own checksum, so that a damaged length is not mistaken for a torn
//! tail, which would silently drop all entries after it.

use std::io;

use super::JournalEntry;

/// The first bytes of the file. The last one is the version of the format.
pub(super) const MAGIC: [u8; 8] = *b"millmem\x03";

const HEADER: usize = 12;

/// Writes the frame of an entry to `frame`, which is cleared first.
pub(super) fn encode(entry: &JournalEntry, frame: &mut Vec<u8>) -> io::Result<()> {
    frame.clear();
    frame.resize(HEADER, 0);
    *frame = postcard::to_extend(entry, std::mem::take(frame)).map_err(io::Error::other)?;
    let length = u32::try_from(frame.len() - HEADER).map_err(io::Error::other)?;
    let length = length.to_le_bytes();
    let body_check = crc32fast::hash(&frame[HEADER..]).to_le_bytes();
    frame[..4].copy_from_slice(&length);
    frame[4..8].copy_from_slice(&crc32fast::hash(&length).to_le_bytes());
    frame[8..12].copy_from_slice(&body_check);
    Ok(())
}

/// The position of damage in a journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) at: u64,
}

/// Applies all complete frames and returns the offset of their end.
///
/// After them may be a torn tail: the last write, which did not complete and was never
/// acknowledged. Either the file ends within the frame, or only zeros follow (a file system may grow a file
/// before it has the data). A frame that is complete but does not match its checksums was
/// acknowledged and is damaged, wherever it is.
pub(super) fn replay(bytes: &[u8], mut apply: impl FnMut(JournalEntry)) -> Result<u64, Damage> {
    if bytes.len() < MAGIC.len() && MAGIC.starts_with(bytes) {
        return Ok(0);
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    if !bytes.starts_with(&MAGIC) {
        return Err(Damage { at: 0 });
    }
    let mut at = MAGIC.len();
    while at < bytes.len() {
        let damage = || Damage { at: at as u64 };
        let rest = &bytes[at..];
        if rest.iter().all(|byte| *byte == 0) {
            break;
        }
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else {
            break;
        };
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if crc32fast::hash(&header[..4]) != word(4) {
            return Err(damage());
        }
        let length = word(0) as usize;
        let Some(body) = rest.get(..length) else {
            break;
        };
        if crc32fast::hash(body) != word(8) {
            return Err(damage());
        }
        apply(postcard::from_bytes(body).map_err(|_| damage())?);
        at += HEADER + length;
    }
    Ok(at as u64)
}
