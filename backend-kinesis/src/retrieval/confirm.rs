//! Confirms that retention removed nothing between two responses.
//!
//! Kinesis does not report that to a reader that continues by an iterator or a subscription: the next response begins with
//! the oldest record that is left. But retention removes the oldest records first. If the last record that the reader has
//! passed is still there after a response has arrived, so were all records after it, and the response has them.
//!
//! That costs a request for an iterator and one for a single record, and is done only for records that are so old that
//! they may be removed at any time, see [`cursor`](super::cursor).
//!
//! Rejected: to derive that age from the retention period of the stream, as DescribeStreamSummary reports it. It can be
//! lowered, down to a day, at any time, and it can be raised again before the next description, which restores nothing. So no
//! description says what was kept after it, and a reader that trusts one passes over records silently.
//!
//! Rejected: to look only when the age of the records passes a whole number of hours, the unit of retention periods. That
//! is right only if records are removed on time, which is not documented.

use std::time::Duration;

use millstream_core::{ErrorKind, Position, Result};
use tokio::time::{Instant, sleep_until};

use super::output::Done;
use super::shard_reader::ShardReader;
use super::source::StartingPosition;

impl<T: Clone> ShardReader<T> {
    /// Returns whether the shard still has this record, the last one that the reader has passed. If it does not, the reader
    /// must look for its position again.
    pub(super) async fn is_still_there(&mut self, last: Position) -> Result<bool, Done> {
        loop {
            let asked = Instant::now();
            match self.oldest_from(last).await {
                Ok(Some(oldest)) if oldest <= last => {
                    self.cursor.confirm(last, asked);
                    return Ok(true);
                }
                Ok(_) => break,
                Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound) => {
                    break;
                }
                Err(error) => self.on_error(error).await?,
            }
        }
        self.cursor.doubt();
        Ok(false)
    }

    /// Returns the first record that the shard has from this one on.
    async fn oldest_from(&mut self, last: Position) -> Result<Option<Position>> {
        let mut iterator = self.source.iterator(&StartingPosition::At(last)).await?;
        loop {
            let asked = Instant::now();
            let answer = self.source.records(&iterator, 1).await?;
            // These requests count like any others.
            let wait = self.pace.after(answer.bytes(), None, asked);
            sleep_until(asked + wait).await;
            if let Some(oldest) = answer.records.first() {
                return Ok(Some(oldest.position));
            }
            let is_at_tip = answer.behind == Some(Duration::ZERO);
            match answer.next.filter(|_| !is_at_tip) {
                Some(next) => iterator = next,
                None => return Ok(None),
            }
        }
    }
}
