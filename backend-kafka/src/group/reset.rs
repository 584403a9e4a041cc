//! Moves a group to another position, also while its members run.
//!
//! If a group has members, the broker accepts offsets only from a member (`UNKNOWN_MEMBER_ID`
//! for all others). So there are two ways:
//!
//! * A group without members is moved directly.
//! * Otherwise the wanted offsets are stored, as a *request*, in a separate group, which never has members. The
//!   members read it about once a second. The owner of a partition drains it, stores the wanted offset with the
//!   request's number in its [`Note`], and continues from there. The request is applied when every partition has
//!   that number or a later one. If the members leave before that, the group is moved directly after all.
//!
//! The numbers make it safe to repeat a request, to send it twice, and to crash half-way: each partition applies a
//! request once, and of two requests the one with the larger number wins. The requester removes the request when it
//! is applied, because another tool that moves the group later stores no number, and members would apply an old
//! request once more. A newer request that is removed along with it, in a race, is stored again by the caller
//! that waits for it.
//!
//! Rejected: closing all members first, because the caller that resets a group does not know where they
//! run, and the contract says *also while members run*. Rejected: a topic for such messages, which somebody
//! would have to create, permit and clean up.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_core::telemetry::{Causes, event};
use millstream_core::{Error, ErrorKind, Result, Start};

use crate::cluster::admin;
use crate::cluster::deadline::Deadline;
use crate::cluster::topics::no_leader;
use crate::connection::Connection;
use crate::group::group_offsets::GroupOffsets;
use crate::group::note::Note;
use crate::group::start_offsets::start_offsets;
use crate::native::group_offsets::StoredOffset;

const RESET: &str = "reset";

/// Returns the group that holds the requests for `group`. Kafka does not limit the length of a group's name.
pub(crate) fn side_group(group: &str) -> String {
    format!("{group}.millstream-reset")
}

/// Moves a group to another position in one stream.
///
/// A dropped call leaves the group moved, or the move requested, or neither.
pub(crate) async fn reset(
    connection: &Connection,
    group: &str,
    stream: &str,
    to: Start,
) -> Result<()> {
    let deadline = Deadline::after(connection.config.request_timeout);
    let places = start_offsets(connection, RESET, stream, to).await?;
    let side = side_group(group);
    let groups = Groups {
        main: GroupOffsets::new(connection, RESET, group),
        side: GroupOffsets::new(connection, RESET, &side),
    };
    let main = groups.main.read(deadline.left()).await?;
    if main.is_empty() {
        let message = "the group has no progress on any stream";
        return Err(Error::new(ErrorKind::NotFound, RESET, message));
    }
    let asked = groups.side.read(deadline.left()).await?;
    let note = Note {
        reset: Some(next_id(main.iter().chain(&asked))),
        ..Note::default()
    };
    let moved = (0..).zip(places);
    let wanted: Result<Vec<StoredOffset>> = moved
        .map(|(partition, next)| {
            let next = next.ok_or_else(|| no_leader(RESET, stream, partition))?;
            Ok(StoredOffset::new(stream, partition, next, note))
        })
        .collect();
    let wanted = wanted?;
    let look = |time| groups.bring_about(&wanted, time);
    if deadline.until(look).await?.is_none() {
        let message = "the members of the group have not moved yet; the request stands, and they \
                       obey it when they are millstream's and read the stream";
        return Err(Error::new(ErrorKind::Timeout, RESET, message));
    }
    if let Err(error) = groups.forget(connection, side).await {
        event!(
            warn, "millstream.kafka.group.reset_not_removed", group, stream,
            error = %Causes(&error), "an obeyed request to reset was not removed"
        );
    }
    Ok(())
}

/// A group, and the separate group that holds the requests.
struct Groups {
    main: GroupOffsets,
    side: GroupOffsets,
}

impl Groups {
    /// Moves the group if it has no members, and requests the move if it has. Returns `Some` once it has moved.
    async fn bring_about(&self, wanted: &[StoredOffset], time: Duration) -> Result<Option<()>> {
        let main = self.main.read(time).await?;
        let left = behind(wanted, &main);
        if left.is_empty() {
            return Ok(Some(()));
        }
        match self.main.store(left, time).await {
            Ok(()) => return Ok(Some(())),
            // It has members.
            Err(error) if error.kind() == ErrorKind::Fenced => {}
            Err(error) => return Err(error),
        }
        let asked = self.side.read(time).await?;
        // Another caller's request with a larger number is kept, because it includes this one.
        if !behind(wanted, &asked).is_empty() {
            self.side.store(wanted.to_vec(), time).await?;
        }
        Ok(None)
    }

    /// Removes the requests if they are all applied.
    async fn forget(&self, connection: &Connection, side: String) -> Result<()> {
        let time = connection.config.request_timeout;
        let asked = self.side.read(time).await?;
        if asked.is_empty() {
            return Ok(());
        }
        let main = self.main.read(time).await?;
        if !behind(&asked, &main).is_empty() {
            return Ok(());
        }
        let removed = admin::change(connection, RESET, time, {
            async move |client, options| client.delete_groups(&[&side], options).await
        });
        match removed.await {
            // Another caller was faster.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

/// Returns the wanted offsets that are not stored, and for which nothing later is stored.
fn behind(wanted: &[StoredOffset], there: &[StoredOffset]) -> Vec<StoredOffset> {
    let obeyed = obeyed(there);
    let behind = |wanted: &&StoredOffset| {
        let found = obeyed.get(&wanted.place());
        found.is_none_or(|id| *id < wanted.obeyed())
    };
    wanted.iter().filter(behind).cloned().collect()
}

fn obeyed(there: &[StoredOffset]) -> HashMap<(&str, i32), u64> {
    let obeyed = there.iter();
    obeyed
        .map(|stored| (stored.place(), stored.obeyed()))
        .collect()
}

/// Returns a number that is larger than every known number, and than every number that was ever assigned by an
/// equally accurate clock.
fn next_id<'a>(known: impl Iterator<Item = &'a StoredOffset>) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_micros() as u64);
    let largest = known.map(StoredOffset::obeyed).max().unwrap_or(0);
    now.max(largest.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(partition: i32, id: Option<u64>) -> StoredOffset {
        let note = Note {
            reset: id,
            ..Note::default()
        };
        StoredOffset::new("s", partition, 7, note)
    }

    #[test]
    fn a_partition_is_left_until_it_obeys_this_request_or_a_later_one() {
        let wanted: Vec<_> = (0..5).map(|partition| offset(partition, Some(5))).collect();
        let there = [
            offset(0, Some(5)),
            offset(1, Some(4)),
            offset(2, Some(6)),
            offset(3, None),
        ];
        let left: Vec<_> = behind(&wanted, &there)
            .iter()
            .map(|o| o.partition)
            .collect();
        assert_eq!(left, [1, 3, 4]);
    }

    #[test]
    fn numbers_grow_even_where_the_clock_does_not() {
        let ahead = u64::MAX / 2;
        assert_eq!(next_id([offset(0, Some(ahead))].iter()), ahead + 1);
        assert!(next_id([].iter()) > 1_500_000_000_000_000);
    }
}
