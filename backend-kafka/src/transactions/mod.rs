//! Records and progress in one transaction.
//!
//! One call begins a transaction, sends its records, adds the offsets and commits it. No transaction is open between
//! two calls, so a member that leaves gracefully leaves no open transaction behind. A member that dies
//! within a call leaves a transaction that the broker aborts after [`TRANSACTION_TIMEOUT`]. Until then the next
//! owners of its partitions wait for their progress, and readers of committed records wait for the records after
//! it in the partitions that it wrote to.
//!
//! A zombie is fenced twice. First, the offsets are sent with the member's generation, which the broker compares
//! (KIP-447): it refuses the transaction of a member whose partitions are owned by others. Second, a member with an
//! `instance_id` keeps its transactional id: its successor fences the previous producer, and
//! aborts that producer's open transaction at once.
//!
//! [`TRANSACTION_TIMEOUT`]: settings::TRANSACTION_TIMEOUT

mod client;
mod context;
mod failure;
mod producer;
mod settings;
mod transaction;

pub(crate) use producer::TransactionalProducer;
pub(crate) use transaction::Transaction;

/// The operation of errors.
const OPERATION: &str = "publish";
