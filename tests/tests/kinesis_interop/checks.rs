//! Checks what every mixed fleet must guarantee, whatever faults it had.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use conformance::kinesis::consumer_events::{Event, Record};

use crate::log::{Entry, Log};

/// Counters of a case.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) sent: u64,
    pub(crate) handled: u64,
    /// Records that were handled again.
    pub(crate) repeats: u64,
    /// How often a shard moved to another member.
    pub(crate) handovers: u64,
    /// The longest time that two members handled records of one shard.
    pub(crate) overlap: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sent, {} handled, {} repeats, {} handovers, overlap of {:?} at most",
            self.sent, self.handled, self.repeats, self.handovers, self.overlap
        )
    }
}

/// Checks the handled records. `sent` is the number of records of each key; record `n` of a key has the payload
/// `key/n`.
///
/// # Panics
/// If a record was not handled, or was handled before an earlier one of its key, or if two members handled
/// records of one shard for longer than `session`.
#[track_caller]
pub(crate) fn check(log: &Log, sent: &BTreeMap<String, u64>, session: Duration) -> Summary {
    let mut summary = Summary {
        sent: sent.values().sum(),
        ..Summary::default()
    };
    let mut next: BTreeMap<&str, u64> = sent.keys().map(|key| (&**key, 0)).collect();
    let mut owners = Owners::default();
    let entries = log.read();
    for entry in &entries {
        match &entry.reported.event {
            Event::LeaseTaken { shard, .. } => owners.taken(&entry.member, shard),
            Event::Record(record) => {
                summary.handled += 1;
                let (key, n) = record.payload.split_once('/').expect("a payload of ours");
                let n: u64 = n.parse().expect("a number");
                assert_eq!(record.key.as_deref(), Some(key), "{record:?}");
                let next = next.get_mut(key).expect("a key of ours");
                assert!(n <= *next, "{next} of {key} was passed over: {entry:?}");
                if n < *next {
                    summary.repeats += 1;
                } else {
                    *next += 1;
                }
                owners.handled(entry, record);
            }
            _ => {}
        }
    }
    for (key, next) in next {
        let sent = sent[key];
        assert_eq!(next, sent, "of {key}, {next} of {sent} were handled");
    }
    (summary.handovers, summary.overlap) = owners.sum();
    assert!(summary.overlap <= session, "{summary}");
    summary
}

/// The successive owners of each shard, as derived from the records that they handled.
#[derive(Debug, Default)]
struct Owners<'a> {
    /// The number of times that a Java member has owned the lease of a shard, in place of an epoch.
    leases: BTreeMap<(Arc<str>, &'a str), u64>,
    shards: BTreeMap<&'a str, Vec<Owner>>,
}

#[derive(Debug)]
struct Owner {
    member: Arc<str>,
    lease: u64,
    /// The first and the last time that it handled a record while the next owner was running.
    beside: Option<(u64, u64)>,
}

impl<'a> Owners<'a> {
    fn taken(&mut self, member: &Arc<str>, shard: &'a str) {
        *self.leases.entry((member.clone(), shard)).or_default() += 1;
    }

    fn handled(&mut self, entry: &'a Entry, record: &'a Record) {
        let lease = (entry.member.clone(), &*record.shard);
        let lease = record.epoch.or_else(|| self.leases.get(&lease).copied());
        let lease = lease.expect("a lease comes before its records");
        let owners = self.shards.entry(&record.shard).or_default();
        let is_known = |owner: &Owner| owner.member == entry.member && owner.lease == lease;
        match owners.iter().position(is_known) {
            Some(n) if n + 1 == owners.len() => {}
            Some(n) => {
                let beside = owners[n].beside.get_or_insert((entry.reported.at, 0));
                beside.1 = entry.reported.at;
            }
            None => owners.push(Owner {
                member: entry.member.clone(),
                lease,
                beside: None,
            }),
        }
    }

    fn sum(&self) -> (u64, Duration) {
        let owners = self.shards.values();
        let handovers = owners.clone().map(|owners| owners.len() as u64 - 1).sum();
        let beside = owners.flatten().filter_map(|owner| owner.beside);
        let longest = beside.map(|(first, last)| last - first).max();
        (handovers, Duration::from_micros(longest.unwrap_or(0)))
    }
}

/// A checker that accepts everything proves nothing.
pub(crate) fn finds_violations() {
    use conformance::kinesis::consumer_events::TimedEvent;

    let session = Duration::from_micros(10);
    let found = |handled: &[(u64, &str, u64)]| {
        let log = Log::default();
        for (at, member, n) in handled {
            let record = Record {
                shard: "shard".to_owned(),
                seq: n.to_string(),
                sub: 0,
                key: Some("key".to_owned()),
                payload: format!("key/{n}"),
                aggregated: None,
                explicit_hash_key: None,
                epoch: Some(1),
            };
            let event = Event::Record(record);
            log.of(member)(TimedEvent { at: *at, event });
        }
        let sent = BTreeMap::from([("key".to_owned(), 3)]);
        std::panic::catch_unwind(|| check(&log, &sent, session)).err()
    };
    let good = [
        (1, "a", 0),
        (2, "a", 1),
        (3, "b", 1),
        (4, "a", 1),
        (14, "a", 1),
        (5, "b", 2),
    ];
    assert!(found(&good).is_none());
    let lost = [(1, "a", 0), (2, "a", 1)];
    assert!(found(&lost).is_some());
    let passed_over = [(1, "a", 0), (2, "a", 2), (3, "b", 1), (4, "b", 2)];
    assert!(found(&passed_over).is_some());
    let beside = [
        (1, "a", 0),
        (2, "b", 1),
        (3, "b", 2),
        (4, "a", 1),
        (15, "a", 2),
    ];
    assert!(found(&beside).is_some());
}
