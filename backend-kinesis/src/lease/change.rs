//! The changes of leases in the protocol of the KCL 2.x, and a few additional ones.
//!
//! Every change by an owner increments the lease counter, on the condition that the counter is as it was
//! seen. So two owners, in whichever language, can never both change one lease.

use std::sync::Arc;

use super::key::Stream;
use super::row::new::{begin, checkpoint, number, string, strings};
use super::row::{Begin, Pin, Progress, Row, Tip, millis, names};
use super::store::{Condition, Update};

fn counted(row: &Row) -> Update {
    Update {
        set: vec![(names::COUNTER, number(row.counter + 1))],
        remove: Vec::new(),
        given: vec![Condition::Is(names::COUNTER, number(row.counter))],
    }
}

/// Renews the lease: shows that the owner is alive.
pub(crate) fn renew(row: &Row) -> Update {
    counted(row)
}

/// Renews the lease, and notes that nothing was left to be read.
pub(crate) fn renew_at_tip(row: &Row, Tip { after, at }: Tip) -> Update {
    let mut update = renew(row);
    update.set.push((names::TIP, number(millis(at))));
    match after {
        Some(after) => {
            let after = string(&after.to_string());
            update.set.push((names::TIP_AFTER, after));
        }
        None => update.remove.push(names::TIP_AFTER),
    }
    update
}

/// Makes `me` the owner. `pin` is the start of a lease at `LATEST` that was not pinned yet.
pub(crate) fn take(row: &Row, me: &str, stream: &Stream, pin: Option<&Pin>) -> Update {
    let mut update = transfer(row, me);
    update.set.push((names::STREAM, string(&stream.arn)));
    update.set.push((names::CREATED, number(stream.created)));
    if let Some(pin) = pin {
        let attributes = begin(&Begin::Latest(pin.clone()));
        update.set.extend(attributes);
    }
    update
}

/// Makes the next owner the owner.
pub(crate) fn assign(row: &Row, next_owner: &str) -> Update {
    if row.checkpoint_owner.is_none() {
        return transfer(row, next_owner);
    }
    // A Java worker, which does not understand requests for its lease.
    let mut update = counted(row);
    update.set.push((names::OWNER, string(next_owner)));
    update.remove = vec![
        names::CHECKPOINT_OWNER,
        names::REQUESTER,
        names::TAKER,
        names::RESCAN,
    ];
    update
}

fn transfer(row: &Row, to: &str) -> Update {
    let mut update = counted(row);
    update.set.push((names::OWNER, string(to)));
    update.set.push((names::TAKER, string(to)));
    update.set.push((names::EPOCH, number(row.counter + 1)));
    if row.owner.as_deref().is_some_and(|owner| owner != to) {
        update.set.push((names::SWITCHES, number(row.switches + 1)));
    }
    // An interrupted handover of the KCL 3.x would appear to be in progress forever.
    update.remove = vec![names::CHECKPOINT_OWNER, names::REQUESTER, names::RESCAN];
    update
}

/// Releases the lease, so that any worker can take it.
pub(crate) fn evict(row: &Row) -> Update {
    let mut update = counted(row);
    update.remove = vec![
        names::OWNER,
        names::TAKER,
        names::REQUESTER,
        names::RESCAN,
        names::CHECKPOINT_OWNER,
    ];
    update
}

/// Stores a checkpoint.
pub(crate) fn store(row: &Row, progress: Progress) -> Update {
    let sub = match progress {
        Progress::After(position) => position.sub(),
        _ => 0,
    };
    let mut update = counted(row);
    update
        .set
        .push((names::CHECKPOINT, string(&checkpoint(progress))));
    update.set.push((names::SUB, number(sub)));
    update.set.push((names::SWITCHES, number(0)));
    // A prepared checkpoint is older than this. The start of the lease is no longer needed.
    update.remove.extend(names::PENDING);
    update.remove.extend([names::START, names::ITERATOR]);
    update
}

/// Stores the children of a shard at shard end. The counter stays, so the owner is not disturbed.
pub(crate) fn children(children: &[Arc<str>]) -> Update {
    let set = strings(children).map(|children| (names::CHILDREN, children));
    Update {
        set: set.into_iter().collect(),
        remove: Vec::new(),
        given: vec![Condition::Exists],
    }
}

/// Adds the hash range, which rows of old KCL versions lack.
pub(crate) fn range(first: u128, last: u128) -> Update {
    Update {
        set: vec![
            (names::FIRST_HASH, string(&first.to_string())),
            (names::LAST_HASH, string(&last.to_string())),
        ],
        remove: Vec::new(),
        given: vec![Condition::Exists],
    }
}

/// Requests the lease from its owner. The counter stays: the owner sees the request in the response to its next
/// change.
pub(crate) fn request(owner: &str, me: &str) -> Update {
    Update {
        set: vec![(names::REQUESTER, string(me))],
        remove: Vec::new(),
        given: vec![
            Condition::Is(names::OWNER, string(owner)),
            Condition::Is(names::TAKER, string(owner)),
            Condition::Absent(names::REQUESTER),
            Condition::Absent(names::CHECKPOINT_OWNER),
        ],
    }
}

/// Withdraws a request for the lease.
pub(crate) fn withdraw(me: &str) -> Update {
    Update {
        set: Vec::new(),
        remove: vec![names::REQUESTER],
        given: vec![Condition::Is(names::REQUESTER, string(me))],
    }
}

/// Notifies the owner of a lease, so that it scans the table. The owner reacts to a `mark` that differs from the previous
/// one, so the mark need not be removed, and a mark that replaces another is not missed. The counter
/// stays, as for [`request`].
pub(crate) fn notify(owner: &str, mark: u64) -> Update {
    Update {
        set: vec![(names::RESCAN, number(mark))],
        remove: Vec::new(),
        given: vec![
            Condition::Is(names::OWNER, string(owner)),
            Condition::Is(names::TAKER, string(owner)),
        ],
    }
}

/// Makes `me` the owner of a lease that nobody can request then: to others, `me` has requested it already.
pub(crate) fn hold(row: &Row, me: &str, stream: &Stream) -> Update {
    unrequestable(take(row, me, stream, None), me)
}

/// Renews a lease that `me` still owns, and that nobody can request then.
pub(crate) fn keep(row: &Row, me: &str) -> Update {
    unrequestable(owned(renew(row), me), me)
}

fn unrequestable(mut update: Update, me: &str) -> Update {
    update.remove.retain(|name| *name != names::REQUESTER);
    update.set.push((names::REQUESTER, string(me)));
    update
}

fn owned(mut update: Update, me: &str) -> Update {
    update.given.push(Condition::Is(names::OWNER, string(me)));
    update
}

/// Releases a lease that `me` still owns.
pub(crate) fn give_back(row: &Row, me: &str) -> Update {
    owned(evict(row), me)
}

/// Moves a lease that `me` still owns to another position, and releases it.
pub(crate) fn reset(row: &Row, me: &str, to: Option<&Begin>) -> Update {
    let mut update = give_back(row, me);
    update.set.push((names::SUB, number(0)));
    update.set.push((names::SWITCHES, number(0)));
    match to {
        Some(to) => update.set.extend(begin(to)),
        None => update
            .set
            .push((names::CHECKPOINT, string(names::SHARD_END))),
    }
    let set: Vec<&str> = update.set.iter().map(|(name, _)| *name).collect();
    let stale = [
        names::START,
        names::RESOLVED,
        names::ITERATOR,
        names::CHILDREN,
        names::TIP,
        names::TIP_AFTER,
    ];
    let stale = stale.into_iter().filter(|name| !set.contains(name));
    // A shard that is closed at this position keeps its children, because its cleanup needs them.
    let stale = stale.filter(|name| to.is_some() || *name != names::CHILDREN);
    update.remove.extend(stale);
    update.remove.extend(names::PENDING);
    update
}
