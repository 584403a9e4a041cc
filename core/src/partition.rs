use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::{Error, ErrorKind};

/// A partition of a stream: the unit of order and of ownership (Kafka: partition; Kinesis: shard).
///
/// Prints as `stream/id`, and parses back from that text: an id contains no slash. Cheap to clone. Partitions sort by stream,
/// then by the length of the id, then by the id, so that `9` is before `10`.
#[derive(Clone)]
pub struct Partition(Arc<Name>);

struct Name {
    stream: Arc<str>,
    id: Box<str>,
    /// The hash of both names, computed once: partitions are looked up for each batch of records.
    hash: u64,
}

impl Partition {
    /// Creates the name of partition `id` of `stream`.
    pub fn new(stream: impl Into<Arc<str>>, id: impl Into<String>) -> Self {
        let (stream, id) = (stream.into(), id.into().into_boxed_str());
        let hash = FixedState::default().hash_one((&stream, &id));
        Self(Arc::new(Name { stream, id, hash }))
    }

    /// Returns the stream's name.
    pub fn stream(&self) -> &str {
        &self.0.stream
    }

    /// Returns the id within the stream, as the backend prints it (Kafka: `0`, `1`, ...; Kinesis:
    /// `shardId-000000000000`, ...).
    pub fn id(&self) -> &str {
        &self.0.id
    }

    fn rank(&self) -> (&str, usize, &str) {
        (self.stream(), self.id().len(), self.id())
    }
}

impl PartialEq for Partition {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.hash == other.0.hash && self.rank() == other.rank())
    }
}

impl Eq for Partition {}

impl PartialOrd for Partition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Partition {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl Hash for Partition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream(), self.id())
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Parses what [`Display`](fmt::Display) prints.
///
/// # Errors
/// `Invalid` for a text that is not `stream/id`.
impl FromStr for Partition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // Names of streams may contain a slash (Kinesis: ARN), and ids never do.
        match text.rsplit_once('/') {
            Some((stream, id)) if !stream.is_empty() && !id.is_empty() => Ok(Self::new(stream, id)),
            _ => Err(Error::new(
                ErrorKind::Invalid,
                "parse partition",
                format!("{text:?} is not a stream and the id of a partition, as in stream/id"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_prints() {
        for (stream, id) in [
            ("car-raw.events_1", "0"),
            ("car-raw.events_1", "shardId-000000000042"),
            (
                "arn:aws:kinesis:eu-west-1:123456789012:stream/events",
                "shardId-000000000042",
            ),
        ] {
            let partition = Partition::new(stream, id);
            let parsed: Partition = partition.to_string().parse().unwrap();
            assert_eq!((parsed.stream(), parsed.id()), (stream, id));
        }
        for text in ["", "/", "s", "s/", "/0"] {
            let error = text.parse::<Partition>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains("stream/id"), "{error}");
        }
    }

    #[test]
    fn nine_stands_before_ten() {
        let mut partitions: Vec<_> = ["10", "9", "1"].map(|id| Partition::new("s", id)).into();
        partitions.push(Partition::new("r", "99"));
        partitions.sort();
        let printed: Vec<_> = partitions.iter().map(ToString::to_string).collect();
        assert_eq!(printed, ["r/99", "s/1", "s/9", "s/10"]);
    }
}
