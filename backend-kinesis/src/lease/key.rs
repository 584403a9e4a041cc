//! The names of leases: stream and shard in the program, `leaseKey` in the table.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use millstream_core::{Error, ErrorKind, Result};

use super::form;
use super::row::Row;
use crate::config::LeaseKeys;
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
}

/// The format of keys in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyForm {
    /// The shard ID alone.
    Single,
    /// `account:stream:creation:shard`.
    Multi,
}

/// The streams of a member, with their identities, which distinguish them from others of the same name.
#[derive(Debug, Clone)]
pub(crate) struct Streams(Vec<Stream>);

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

impl Streams {
    /// Fails with `Invalid` if one table cannot distinguish the streams, or two of the names are of one stream. `rows` are
    /// all leases of the table.
    pub(crate) fn new(keys: LeaseKeys, streams: &[StreamInfo], rows: &[Row]) -> Result<Self> {
        for (index, info) in streams.iter().enumerate() {
            if let Some(same) = streams[..index].iter().find(|other| other.arn == info.arn) {
                let message = format!(
                    "{} and {} are one stream: name it once",
                    same.name, info.name
                );
                return Err(Error::new(ErrorKind::Invalid, "join", message));
            }
        }
        let streams: Vec<Stream> = match keys {
            LeaseKeys::Single if streams.len() > 1 => {
                let message =
                    "a group of several streams needs `leases.keys = \"multi\"` or \"auto\"";
                return Err(Error::new(ErrorKind::Invalid, "join", message));
            }
            LeaseKeys::Single => of_form(KeyForm::Single, streams)?,
            LeaseKeys::Multi => of_form(KeyForm::Multi, streams)?,
            LeaseKeys::Auto => form::choose(streams, rows)?,
        };
        Ok(Self(streams))
    }

    /// Returns whether the leases of one of the streams have keys of this format.
    pub(crate) fn has_form(&self, form: KeyForm) -> bool {
        self.0.iter().any(|stream| stream.form() == form)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.0.iter()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Stream> {
        self.0.iter().find(|stream| &*stream.name == name)
    }

    /// Parses a key of the table. Returns `None` if it belongs to a stream that is not read
    /// here.
    pub(crate) fn parse(&self, key: &str) -> Option<LeaseKey> {
        self.0.iter().find_map(|stream| stream.parse(key))
    }

    /// Returns the table's key for a lease of one of these streams.
    pub(crate) fn key(&self, lease: &LeaseKey) -> Option<Arc<str>> {
        Some(self.get(&lease.stream)?.key(&lease.shard))
    }
}

fn of_form(form: KeyForm, streams: &[StreamInfo]) -> Result<Vec<Stream>> {
    let streams = streams.iter().map(|info| Stream::new(form, info));
    streams.collect()
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

    fn parse(&self, key: &str) -> Option<LeaseKey> {
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use aws_sdk_kinesis::types::StreamStatus;

    use super::*;

    fn info(name: &str) -> StreamInfo {
        StreamInfo {
            name: name.into(),
            arn: format!("arn:aws:kinesis:eu-west-1:123456789012:stream/{name}").into(),
            created: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_700),
            record_bytes: 1 << 20,
            status: StreamStatus::Active,
            distributes: false,
        }
    }

    #[test]
    fn keys_of_several_streams_are_those_of_the_kcl() {
        let streams = Streams::new(LeaseKeys::Multi, &[info("a"), info("b")], &[]).unwrap();
        let lease = LeaseKey {
            stream: "b".into(),
            shard: "shardId-000000000001".into(),
        };
        let key = streams.key(&lease).unwrap();
        assert_eq!(&*key, "123456789012:b:1700000000:shardId-000000000001");
        assert_eq!(streams.parse(&key), Some(lease));
        let other = "123456789012:b:1600000000:shardId-000000000001";
        assert_eq!(streams.parse(other), None);
        assert_eq!(KeyForm::of(&key), KeyForm::Multi);
    }

    #[test]
    fn a_stream_has_the_same_keys_by_its_name_and_by_its_arn() {
        let by_name = info("a");
        let by_arn = StreamInfo {
            name: by_name.arn.clone(),
            ..info("a")
        };
        for form in [KeyForm::Single, KeyForm::Multi] {
            let keys = [&by_name, &by_arn].map(|info| {
                let stream = Stream::new(form, info).unwrap();
                stream.key("shardId-000000000001")
            });
            assert_eq!(keys[0], keys[1], "{form:?}");
        }
        let twice = Streams::new(LeaseKeys::Multi, &[by_name, by_arn], &[]);
        assert_eq!(twice.unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn streams_of_two_accounts_may_have_one_name() {
        let ours = info("a");
        let arn: Arc<str> = "arn:aws:kinesis:eu-west-1:999999999999:stream/a".into();
        let theirs = StreamInfo {
            name: arn.clone(),
            arn,
            ..info("a")
        };
        let streams = Streams::new(LeaseKeys::Multi, &[ours, theirs.clone()], &[]).unwrap();
        let lease = LeaseKey {
            stream: theirs.name,
            shard: "shardId-000000000001".into(),
        };
        let key = streams.key(&lease).unwrap();
        assert_eq!(&*key, "999999999999:a:1700000000:shardId-000000000001");
        assert_eq!(streams.parse(&key), Some(lease));
    }

    #[test]
    fn keys_of_one_stream_are_its_shards() {
        let streams = Streams::new(LeaseKeys::Single, &[info("a")], &[]).unwrap();
        let lease = streams.parse("shardId-000000000001").unwrap();
        assert_eq!(&*lease.stream, "a");
        assert_eq!(&*streams.key(&lease).unwrap(), "shardId-000000000001");
        assert_eq!(streams.parse("1:a:2:shardId-000000000001"), None);
        let several = Streams::new(LeaseKeys::Single, &[info("a"), info("b")], &[]);
        assert_eq!(several.unwrap_err().kind(), ErrorKind::Invalid);
    }
}
