//! The state of the cluster, and changes to it: topics, and the begin and end offsets of their partitions.

mod absence;
pub(crate) mod admin;
pub(crate) mod deadline;
pub(crate) mod list_offsets;
mod propagation;
mod streams;
pub(crate) mod topics;

pub(crate) use absence::Absence;
pub(crate) use streams::Streams;
