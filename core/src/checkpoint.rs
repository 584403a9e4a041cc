use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{Error, ErrorKind, Partition, Position};

/// A number that grows each time a partition gets a new owner in a group: the fencing token (Kafka:
/// generation or member epoch; Kinesis: lease counter at the take).
///
/// A sink that remembers the highest epoch per partition can refuse a stale owner. It must be able to
/// forget: if a broker forgets a group, its epochs start again. Kafka does so some time after the last
/// member has left and the stored offsets have expired, a week later by default.
///
/// An epoch prints as a decimal number, and parses back from that text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Parses what [`Display`](fmt::Display) prints.
///
/// # Errors
/// `Invalid` for a text that is not a decimal number of 64 bits.
impl FromStr for Epoch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if is_number => Ok(Self(number)),
            _ => Err(Error::new(
                ErrorKind::Invalid,
                "parse epoch",
                format!("{text:?} is not a decimal number of at most 64 bits, such as 7"),
            )),
        }
    }
}

/// How far a group is behind the end of a partition. Fields that the backend does not know are
/// `None`.
///
/// In a [`Checkpoint`], it counts from the last settled position, and so everything that is not
/// settled. In [`PartitionStats`](crate::PartitionStats), it counts from the last *received* record: it
/// stays zero while a stuck handler holds up records that its member has received. For an alarm see
/// [`PartitionStats::behind`](crate::PartitionStats::behind).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Records stored after the group's position.
    pub records: Option<u64>,
    /// Age of the oldest of these records, by the backend's clock (memory, Kafka: whole
    /// milliseconds, so that fresh records have an age of zero); zero if there are none.
    pub time: Option<Duration>,
}

/// A group's stored progress in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The partition.
    pub partition: Partition,
    /// The last settled position. `None` if nothing was settled since the group started or was reset,
    /// and on Kinesis also if the partition is `completed`.
    pub position: Option<Position>,
    /// The epoch of the owner in the stored progress: the one that stored the last checkpoint,
    /// or on Kinesis the last one that the partition was assigned with. `None` if there is none, for example
    /// when nothing was settled since the group started or was reset.
    pub epoch: Option<Epoch>,
    /// Whether the partition is closed and fully settled.
    pub completed: bool,
    /// The lag behind the position, or behind the start of the group if nothing was settled.
    pub lag: Lag,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_parses_what_it_prints() {
        for number in [0, 7, u64::MAX] {
            let epoch = Epoch(number);
            assert_eq!(epoch.to_string().parse::<Epoch>().unwrap(), epoch);
        }
        for text in ["", "+7", "-7", "7.0", "18446744073709551616"] {
            let error = text.parse::<Epoch>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains("decimal number"), "{error}");
        }
    }
}
