//! The names of leases: stream and shard in the program, `leaseKey` in the table.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use millstream_core::{Error, ErrorKind, Partition, Result};

use super::row::Row;
use crate::stream::{Arn, StreamInfo};

/// The key of a lease: a stream and one of its shards.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LeaseKey {
    pub(crate) stream: Arc<str>,
    pub(crate) shard: Arc<str>,
}

impl LeaseKey {
    /// Parses a key of any table. `single` is the stream for keys that do not name
    /// theirs.
    pub(crate) fn read(key: &str, single: &Arc<str>) -> Self {
        let mut parts = key.splitn(4, ':');
        let (stream, shard) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (_, Some(stream), _, Some(shard)) => (stream.into(), shard),
            _ => (single.clone(), key),
        };
        Self {
            stream,
            shard: shard.into(),
        }
    }

    /// Returns the partition that the application reads through the lease.
    pub(crate) fn partition(&self) -> Partition {
        Partition::new(self.stream.clone(), &*self.shard)
    }
}

/// The format of keys in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyForm {
    /// The shard ID alone.
    Single,
    /// `account:stream:creation:shard`.
    Multi,
}

/// A stream with its identity, which distinguishes it from others of the same name.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    /// Its name or its ARN, as the application wrote it.
    pub(crate) name: Arc<str>,
    pub(crate) arn: Arc<str>,
    /// Its creation time in seconds since the epoch.
    pub(crate) created: u64,
    /// The stream identifier of the KCL, if its keys have the format for several streams.
    pub(crate) identifier: Option<Arc<str>>,
}

impl Stream {
    pub(crate) fn new(form: KeyForm, info: &StreamInfo) -> Result<Self> {
        let created = info.created.duration_since(UNIX_EPOCH);
        let created = created.map_or(0, |since| since.as_secs());
        let identifier = match form {
            KeyForm::Single => None,
            KeyForm::Multi => {
                let Arn { account, name, .. } = Arn::parse(&info.arn).ok_or_else(|| {
                    let message = format!("the stream's ARN {:?} cannot be understood", info.arn);
                    Error::new(ErrorKind::Corrupt, "join", message).with_stream(info.name.clone())
                })?;
                // Not the name that the application uses, which may be the ARN.
                Some(format!("{account}:{name}:{created}").into())
            }
        };
        Ok(Self {
            name: info.name.clone(),
            arn: info.arn.clone(),
            created,
            identifier,
        })
    }

    /// Returns the format of its keys.
    pub(crate) fn form(&self) -> KeyForm {
        match self.identifier {
            Some(_) => KeyForm::Multi,
            None => KeyForm::Single,
        }
    }

    /// Returns whether a row shows that it is a lease of this stream, or of an earlier one of its name.
    pub(crate) fn has_arn_of(&self, row: &Row) -> bool {
        let stream = row.own.stream.as_ref();
        stream.is_some_and(|(arn, _)| *arn == self.arn)
    }

    /// Returns the table's key for a shard of this stream.
    pub(crate) fn key(&self, shard: &str) -> Arc<str> {
        match &self.identifier {
            None => shard.into(),
            Some(identifier) => format!("{identifier}:{shard}").into(),
        }
    }

    pub(crate) fn lease(&self, shard: &str) -> LeaseKey {
        LeaseKey {
            stream: self.name.clone(),
            shard: shard.into(),
        }
    }

    /// Returns whether a key belongs to a stream of the same account and name, but with another creation time.
    pub(crate) fn is_namesake(&self, key: &str) -> bool {
        let name = |key: &str| {
            key.splitn(3, ':')
                .take(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let identifier = self.identifier.as_deref();
        identifier.is_some_and(|identifier| name(identifier) == name(key))
    }

    /// Returns whether a key of the table belongs to this stream.
    pub(crate) fn owns(&self, key: &str) -> bool {
        self.parse(key).is_some()
    }

    pub(crate) fn parse(&self, key: &str) -> Option<LeaseKey> {
        let shard = match &self.identifier {
            None => Some(key).filter(|key| !key.contains(':')),
            Some(identifier) => key.strip_prefix(&**identifier)?.strip_prefix(':'),
        };
        Some(self.lease(shard?))
    }
}

impl KeyForm {
    /// Returns the format of a key of the table.
    pub(crate) fn of(key: &str) -> Self {
        match key.contains(':') {
            true => Self::Multi,
            false => Self::Single,
        }
    }
}
