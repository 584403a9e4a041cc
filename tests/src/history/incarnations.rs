use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_core::{Delivery, Partition};

use super::generator::id_of_delivery;

/// The names that a history gives to recreated streams.
///
/// A recreated stream is another stream, whose positions restart. The first one of a name keeps
/// the name, the second one of `cars` is `cars~2`: no stream of a broker has such a name. Cheap to clone;
/// clones share the names.
#[derive(Debug, Clone, Default)]
pub struct Incarnations(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// By the broker's name; only streams that were deleted.
    streams: BTreeMap<Arc<str>, Incarnation>,
    /// The streams of the stream ids in deliveries.
    by_stream_id: BTreeMap<Arc<str>, Arc<str>>,
    /// The streams of records that were not sent to the first one of a name.
    by_record: BTreeMap<u64, Arc<str>>,
    /// The number of changes.
    version: u64,
}

/// The latest stream of a name.
#[derive(Debug)]
struct Incarnation {
    number: u64,
    exists: bool,
}

impl Incarnations {
    /// Records that a stream is about to be deleted. Returns its name, and that of the next one.
    pub fn delete(&self, stream: &str) -> (Arc<str>, Arc<str>) {
        let mut known = self.lock();
        let incarnation = known.streams.entry(stream.into()).or_insert(Incarnation {
            number: 1,
            exists: true,
        });
        incarnation.number += 1;
        incarnation.exists = false;
        let next = incarnation.number;
        known.version += 1;
        (name(stream, next - 1), name(stream, next))
    }

    /// Records that a stream was recreated.
    pub fn created(&self, stream: &str) {
        let mut known = self.lock();
        if let Some(incarnation) = known.streams.get_mut(stream) {
            incarnation.exists = true;
        }
        known.version += 1;
    }

    /// Returns a number that changes with each deletion and creation: data that was read meanwhile may be of
    /// either stream.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// Returns the name of the stream that the broker has now, or `None` from its deletion until the next
    /// one is created.
    pub fn current(&self, stream: &str) -> Option<Arc<str>> {
        match self.lock().streams.get(stream) {
            None => Some(stream.into()),
            Some(incarnation) => incarnation.exists.then(|| name(stream, incarnation.number)),
        }
    }

    /// Returns the names of all streams that the broker has had under a name, the first one first.
    pub fn all(&self, stream: &str) -> Vec<Arc<str>> {
        let known = self.lock();
        let last = known.streams.get(stream).map_or(1, |found| found.number);
        (1..=last).map(|number| name(stream, number)).collect()
    }

    /// Returns the number of deletions of streams of a name.
    pub fn deletions(&self, stream: &str) -> u64 {
        let known = self.lock();
        known
            .streams
            .get(stream)
            .map_or(0, |found| found.number - 1)
    }

    /// Records to which stream a record is sent.
    pub fn sent(&self, id: u64, name: &Arc<str>) {
        if !is_first(name) {
            self.lock().by_record.insert(id, name.clone());
        }
    }

    /// Returns the partition of a delivery, in the stream of its stream id: the one to which the
    /// first record with this id was sent.
    pub fn partition(&self, delivery: &Delivery) -> Partition {
        let mut known = self.lock();
        let id = id_of_delivery(delivery);
        let sent_to = id.and_then(|id| known.by_record.get(&id)).cloned();
        let sent_to = sent_to.unwrap_or_else(|| delivery.stream().into());
        let stream = match delivery.stream_id() {
            None => sent_to,
            Some(stream_id) => {
                let stream = known.by_stream_id.entry(stream_id.into());
                stream.or_insert(sent_to).clone()
            }
        };
        Partition::new(stream, delivery.partition().id())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // No code that runs under the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(stream: &str, number: u64) -> Arc<str> {
    match number {
        1 => stream.into(),
        _ => format!("{stream}~{number}").into(),
    }
}

fn is_first(name: &str) -> bool {
    !name.contains('~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_created_again_has_another_name() {
        let incarnations = Incarnations::default();
        assert_eq!(incarnations.current("s").as_deref(), Some("s"));
        assert_eq!(incarnations.delete("s"), ("s".into(), "s~2".into()));
        assert_eq!(incarnations.current("s"), None);
        incarnations.created("s");
        assert_eq!(incarnations.current("s").as_deref(), Some("s~2"));
        assert_eq!(incarnations.delete("s"), ("s~2".into(), "s~3".into()));
        let all = ["s", "s~2", "s~3"].map(Arc::from);
        assert_eq!(incarnations.all("s"), all);
        assert_eq!(
            (incarnations.deletions("s"), incarnations.deletions("t")),
            (2, 0)
        );
    }
}
