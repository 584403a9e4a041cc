//! Checks the dead letter stream of a group.

use std::collections::{BTreeMap, BTreeSet};

use millstream_core::{Delivery, Headers, Partition, Position, Result};

use super::sim_group::SimGroup;
use super::stream_contents;
use super::world::World;
use crate::history::{Entry, Event, Outcome, digest, id_of_delivery};

type SourceRecord = (Partition, Position);

/// Records the dead letters of a group. Each must be of a record that the group has given up on, and contain
/// all of that record, unless the letter declares otherwise.
pub(super) async fn check(world: &World, sim_group: &SimGroup) -> Result<()> {
    let group = &*sim_group.plan.name;
    let letters = stream_contents::read_all(world, &sim_group.plan.dead_letters()).await?;
    let counted = sim_group.dead_letters();
    if (letters.len() as u64) < counted {
        let stored = letters.len();
        world.report_problem(format!(
            "{group} has counted {counted} dead letters, {stored} are stored"
        ));
    }
    let records = Records::of(group, &world.history.entries());
    for letter in letters {
        let (mut is_known, mut problem) = (false, "is of an unknown stream");
        // A letter does not contain which stream of that name it is from. A letter with little of its record may match
        // a record of each.
        for stream in world.incarnations.all(stream_of(&letter)) {
            match records.identify(group, &stream, &letter) {
                Ok(id) => {
                    is_known = true;
                    world.record(Event::DeadLettered {
                        group: group.into(),
                        id,
                    });
                }
                Err(wrong) => problem = wrong,
            }
        }
        if !is_known {
            world.report_problem(format!("a dead letter of {group} {problem}: {letter:?}"));
        }
    }
    Ok(())
}

/// The records that a group had to handle.
#[derive(Debug, Default)]
struct Records {
    ids: BTreeMap<SourceRecord, u64>,
    given_up: BTreeSet<SourceRecord>,
    digests: BTreeMap<u64, u64>,
}

impl Records {
    fn of(group: &str, entries: &[Entry]) -> Self {
        let mut records = Self::default();
        for Entry { event, .. } in entries {
            match event {
                Event::Sent { id, digest, .. } => _ = records.digests.insert(*id, *digest),
                Event::Ended { handling, outcome } if *handling.by.group == *group => {
                    let place = (handling.by.partition.clone(), handling.position);
                    if *outcome == Outcome::GaveUp {
                        records.given_up.insert(place.clone());
                    }
                    records.ids.insert(place, handling.id);
                }
                _ => {}
            }
        }
        records
    }

    /// Returns the id of a letter's record if the record is of this stream, or the mismatch.
    fn identify(
        &self,
        group: &str,
        stream: &str,
        letter: &Delivery,
    ) -> std::result::Result<u64, &'static str> {
        let header = |name: &str| dead_letter_header(letter, name);
        let place = || {
            let partition = Partition::new(stream, header("partition")?);
            Some((partition, header("position")?.parse().ok()?))
        };
        let place = place().ok_or("does not say of which record it is")?;
        let id = *self
            .ids
            .get(&place)
            .ok_or("is of a record that was not handled")?;
        if !self.given_up.contains(&place) {
            return Err("is of a record that was not given up");
        }
        let changed: Vec<&str> = header("changed").map_or(vec![], |all| all.split(',').collect());
        if header("group") != Some(group)
            && !(changed.contains(&"reason") && header("group").is_none())
        {
            return Err("is of another group");
        }
        let is_whole = !["key", "headers", "payload"]
            .iter()
            .any(|part| changed.contains(part));
        if is_whole && Some(&digest_before(letter)) != self.digests.get(&id) {
            return Err("is not like its record");
        }
        if id_of_delivery(letter).is_some_and(|found| found != id) {
            return Err("has another record's id");
        }
        Ok(id)
    }
}

/// Returns the stream of a letter's original record.
fn stream_of(letter: &Delivery) -> &str {
    dead_letter_header(letter, "stream").unwrap_or_default()
}

fn dead_letter_header<'a>(letter: &'a Delivery, name: &str) -> Option<&'a str> {
    letter.headers().get_str(&format!("millstream-dead-{name}"))
}

/// Returns the digest of a letter's original record.
fn digest_before(letter: &Delivery) -> u64 {
    let mut headers = Headers::new();
    for (name, value) in letter.headers() {
        let name = match name.strip_prefix("millstream-dead-") {
            None => name.to_owned(),
            Some(added) => match added.strip_prefix("named-") {
                None => continue,
                Some(encoded) => percent_decoded(encoded),
            },
        };
        match value {
            Some(value) => headers.push(name, value.clone()),
            None => headers.push_null(name),
        }
    }
    digest(letter.key(), letter.nullable_payload(), headers.iter())
}

fn percent_decoded(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let mut decoded = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (byte, rest) = part.split_at_checked(2).unwrap_or_default();
        decoded.extend(u8::from_str_radix(byte, 16));
        decoded.extend(rest.as_bytes());
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
