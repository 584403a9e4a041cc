//! The events of all members of a case, in the order in which they happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use conformance::kinesis::consumer_events::{Event, Record, TimedEvent};

/// One event of one member.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) member: Arc<str>,
    pub(crate) reported: TimedEvent,
}

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Entry>>>);

impl Log {
    /// Collects the events of `member`.
    pub(crate) fn of(&self, member: &str) -> impl Fn(TimedEvent) + Send + 'static {
        let (log, member) = (self.clone(), Arc::from(member));
        move |reported| {
            let member = Arc::clone(&member);
            log.entries().push(Entry { member, reported });
        }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all events so far, in the order of the members' common clock: members report concurrently, but
    /// their output is read one after the other.
    pub(crate) fn read(&self) -> Vec<Entry> {
        let mut entries = self.entries().clone();
        entries.sort_by_key(|entry| entry.reported.at);
        entries
    }

    /// Returns the records that `member` handled.
    pub(crate) fn records(&self, member: &str) -> Vec<Record> {
        let entries = self.entries();
        let of = entries.iter().filter(|entry| *entry.member == *member);
        of.filter_map(|entry| match &entry.reported.event {
            Event::Record(record) => Some(record.clone()),
            _ => None,
        })
        .collect()
    }

    /// Returns a member that has failed, if any.
    pub(crate) fn failed(&self) -> Option<Entry> {
        let entries = self.entries();
        let mut failed = entries
            .iter()
            .filter(|entry| matches!(entry.reported.event, Event::Failed { .. }));
        failed.next().cloned()
    }

    /// Returns which member handled the last record of each shard.
    pub(crate) fn last_handlers(&self) -> BTreeMap<String, Arc<str>> {
        let handled = self.read().into_iter().filter_map(record_of);
        handled.map(|(by, record)| (record.shard, by)).collect()
    }

    /// Returns when a member other than `member` handled its first record of each shard after `at`.
    pub(crate) fn begun_by_others(&self, member: &str, at: u64) -> BTreeMap<String, u64> {
        let mut begun = BTreeMap::new();
        for entry in self.read() {
            let (when, by) = (entry.reported.at, entry.member.clone());
            if let Event::Record(record) = entry.reported.event
                && when > at
                && *by != *member
            {
                begun.entry(record.shard).or_insert(when);
            }
        }
        begun
    }

    /// Returns the payloads that were handled.
    pub(crate) fn payloads(&self) -> BTreeSet<String> {
        let handled = self.read().into_iter().filter_map(record_of);
        handled.map(|(_, record)| record.payload).collect()
    }
}

fn record_of(entry: Entry) -> Option<(Arc<str>, Record)> {
    match entry.reported.event {
        Event::Record(record) => Some((entry.member, record)),
        _ => None,
    }
}
