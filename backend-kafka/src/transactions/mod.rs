//! Records and progress in one transaction.
//!
//! A transaction is begun, filled, given the offsets and committed by one call. Nothing is open between
//! two calls, so a member that leaves in good order leaves no open transaction behind. One that dies
//! within a call leaves one that the broker aborts after [`TRANSACTION_TIMEOUT`]. Until then the next
//! owners of its partitions wait for their progress, and readers of committed records wait for what
//! follows in the partitions that it wrote to.
//!
//! A zombie is fenced twice. The offsets go with the member's generation, which the broker compares
//! (KIP-447): it refuses the transaction of a member whose partitions others have. And a member with an
//! `instance_id` keeps its transactional id: its successor fences the producer of the one before, and
//! aborts at once what that one had open.
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

/// The verb of errors.
const OPERATION: &str = "publish";
