//! What the cluster holds, and how to change it: topics, and where their partitions begin and end.

mod absence;
pub(crate) mod admin;
pub(crate) mod deadline;
pub(crate) mod list_offsets;
mod propagation;
mod streams;
pub(crate) mod topics;

pub(crate) use absence::Absence;
pub(crate) use streams::Streams;
