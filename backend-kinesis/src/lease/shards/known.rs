//! The shards that have a lease.

use super::Known;
use crate::lease::key::Stream;
use crate::lease::row::{Progress, Row};

/// Returns the shards of a stream that have a lease.
pub(crate) fn known(stream: &Stream, rows: &[Row]) -> Known {
    let shard = |row: &Row| {
        let prefix = stream.key("").len();
        let shard = row.key.get(prefix..)?;
        Some((shard.into(), row.progress == Progress::End))
    };
    rows.iter().filter_map(shard).collect()
}
