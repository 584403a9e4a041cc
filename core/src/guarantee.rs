use std::fmt;

use crate::{Error, ErrorKind, Result, driver};

/// What a program may require: of a group with [`ConsumerGroup::require`](crate::ConsumerGroup::require), and of a
/// producer with [`ProducerBuilder::require`](crate::ProducerBuilder::require).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Guarantee {
    /// Acknowledged records and checkpoints survive the end of the process and of the broker.
    Durable,
    /// A pipeline ([`transform_to`](crate::ConsumerGroup::transform_to)) whose producer is of the
    /// group's client stores results and progress atomically: readers see each result once.
    ExactlyOnce,
    /// Partitions can be split and merged, and every key keeps its order.
    OrderedReshard,
    /// The records of one key are stored in the order of their sends, and handled in stored order, one at a time
    /// (the promises C1 and C2).
    ///
    /// A backend that promises this may have streams that are exceptions: Kinesis streams that distribute records
    /// themselves (`AUTO`). It refuses those where key order is required.
    KeyOrder,
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Durable => "durable",
            Self::ExactlyOnce => "exactly once",
            Self::OrderedReshard => "ordered reshard",
            Self::KeyOrder => "key order",
        })
    }
}

/// What a backend guarantees beyond the promises C1 to C14, which all backends keep, and whether programs can require
/// key order of its streams.
///
/// The conformance suite has cases for every field. They run where the field is true, and are
/// reported as not promised where it is false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Guarantees {
    /// See [`Guarantee::Durable`].
    pub durable: bool,
    /// See [`Guarantee::ExactlyOnce`].
    pub exactly_once: bool,
    /// See [`Guarantee::OrderedReshard`].
    pub ordered_reshard: bool,
    /// Partitions can be added to a stream, after which keys may move to other partitions.
    pub add_partitions: bool,
    /// See [`Guarantee::KeyOrder`]. A single stream may be an exception, which
    /// [`require`](crate::ConsumerGroup::require) finds.
    pub key_order: bool,
}

impl Guarantees {
    /// Returns whether `guarantee` is promised.
    pub const fn has(&self, guarantee: Guarantee) -> bool {
        match guarantee {
            Guarantee::Durable => self.durable,
            Guarantee::ExactlyOnce => self.exactly_once,
            Guarantee::OrderedReshard => self.ordered_reshard,
            Guarantee::KeyOrder => self.key_order,
        }
    }
}

/// Checks that the backend promises what a program requires. The driver checks the single stream.
pub(crate) fn check_required(
    backend: &dyn driver::Backend,
    required: &[Guarantee],
    operation: &'static str,
) -> Result<()> {
    let guarantees = backend.guarantees();
    match required
        .iter()
        .find(|guarantee| !guarantees.has(**guarantee))
    {
        None => Ok(()),
        Some(guarantee) => {
            let message = format!(
                "the {} backend does not promise {guarantee:?} ({guarantee})",
                backend.name()
            );
            Err(Error::new(ErrorKind::Unsupported, operation, message))
        }
    }
}
