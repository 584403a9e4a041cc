use std::fmt;

/// What a program may require of its backend; see
/// [`ConsumerGroup::require`](crate::ConsumerGroup::require).
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
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Durable => "durable",
            Self::ExactlyOnce => "exactly once",
            Self::OrderedReshard => "ordered reshard",
        })
    }
}

/// What a backend guarantees beyond the promises C1 to C14, which all backends keep.
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
}

impl Guarantees {
    /// Returns whether `guarantee` is promised.
    pub const fn has(&self, guarantee: Guarantee) -> bool {
        match guarantee {
            Guarantee::Durable => self.durable,
            Guarantee::ExactlyOnce => self.exactly_once,
            Guarantee::OrderedReshard => self.ordered_reshard,
        }
    }
}
