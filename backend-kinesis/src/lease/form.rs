//! Chooses the format of each stream's keys in a table that exists.
//!
//! A lease keeps its key as long as it lives: its progress is never copied to another row. So a group of one stream may get
//! a second one, and lose it again, while members of both settings run. The first stream's leases stay as they
//! are, and the second one's have keys that name it.
//!
//! Rejected: moving the leases of the first stream to the other format. A member with the old settings would find none,
//! and begin from the start or, worse, at the tip.

use millstream_core::{Error, ErrorKind, Result};

use super::key::{KeyForm, Stream};
use super::row::Row;
use crate::stream::StreamInfo;

/// Returns the streams, each with the format that its leases have, or that new ones get.
pub(super) fn choose(streams: &[StreamInfo], rows: &[Row]) -> Result<Vec<Stream>> {
    let table = Table { rows };
    let chosen: Result<Vec<Stream>> = streams
        .iter()
        .map(|info| table.stream(info, streams.len() == 1))
        .collect();
    let chosen = chosen?;
    let singles = chosen.iter().filter(|s| s.form() == KeyForm::Single);
    if singles.count() > 1 {
        return Err(invalid(
            "the keys of the leases of two streams do not name the stream, so that they cannot be told apart: \
             name another table"
                .to_owned(),
        ));
    }
    for stream in &chosen {
        table.check(stream, &chosen)?;
    }
    Ok(chosen)
}

struct Table<'a> {
    rows: &'a [Row],
}

impl Table<'_> {
    fn stream(&self, info: &StreamInfo, is_alone: bool) -> Result<Stream> {
        let (single, multi) = (
            Stream::new(KeyForm::Single, info)?,
            Stream::new(KeyForm::Multi, info)?,
        );
        let named = self.rows.iter().find(|row| multi.owns(&row.key));
        let unnamed = self.singles().find(|row| single.has_arn_of(row));
        match (unnamed, named) {
            (Some(one), Some(other)) => Err(invalid(format!(
                "the stream {} has leases of two formats, {} and {}: delete those of one, whose progress is then lost",
                info.name, one.key, other.key
            ))),
            (Some(_), None) => Ok(single),
            (None, Some(_)) => Ok(multi),
            // Leases that show no stream are those of the only one.
            (None, None)
                if is_alone && (self.anonymous().is_some() || !self.has(KeyForm::Multi)) =>
            {
                Ok(single)
            }
            (None, None) => Ok(multi),
        }
    }

    /// Checks that a stream with keys that name it can share the table with the leases whose keys name none.
    fn check(&self, stream: &Stream, all: &[Stream]) -> Result<()> {
        let is_new = !self.rows.iter().any(|row| stream.owns(&row.key));
        if stream.form() == KeyForm::Single || !is_new {
            return Ok(());
        }
        let is_known = all.iter().any(|stream| stream.form() == KeyForm::Single);
        if let Some(row) = self.anonymous().filter(|_| !is_known) {
            return Err(invalid(format!(
                "only Java workers have had the lease {}, and its key does not tell of which stream it is: start a \
                 member of that stream alone first, and name the others when it has the lease",
                row.key
            )));
        }
        let of_java = self.singles().find(|row| row.is_held_by_java());
        match of_java {
            Some(row) => Err(invalid(format!(
                "a Java worker has the lease {}, and the KCL cannot work with a table whose keys have two formats: let \
                 members here take all leases of the other stream before {} is added, or name another table",
                row.key, stream.name
            ))),
            None => Ok(()),
        }
    }

    fn anonymous(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.is_anonymous())
    }

    fn has(&self, form: KeyForm) -> bool {
        self.rows.iter().any(|row| KeyForm::of(&row.key) == form)
    }

    fn singles(&self) -> impl Iterator<Item = &Row> {
        let is_single = |row: &&Row| KeyForm::of(&row.key) == KeyForm::Single;
        self.rows.iter().filter(is_single)
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, "join", message)
}
