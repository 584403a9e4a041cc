//! The streams of a member, and their leases in its table.

use std::sync::Arc;

use millstream_core::{Error, ErrorKind, Result};

use super::form;
use super::key::{KeyForm, LeaseKey, Stream};
use super::row::Row;
use crate::config::LeaseKeys;
use crate::stream::StreamInfo;

/// The streams of a member, with their identities, which distinguish them from others of the same name.
#[derive(Debug, Clone)]
pub(crate) struct Streams(Vec<Stream>);

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
