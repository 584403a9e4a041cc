//! A group that consumes, transforms and publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Mutex;

use millstream_core::{Delivery, Partition, Position, Producer, Record};

use super::world::{World, lock};
use crate::history::{Entry, Event, Incarnations, Outcome, RecordGenerator};

/// The first id of the records of pipelines.
const FIRST_ID: u64 = 1_000_000_000;

/// The state that the members of a pipeline share.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) producer: Producer,
    /// Whether each result is promised to be stored once.
    once: bool,
    load: Mutex<RecordGenerator>,
    incarnations: Incarnations,
    /// The source of each result.
    sources: Mutex<BTreeMap<u64, Source>>,
}

/// The state of a pipeline that survives a restart.
#[derive(Debug)]
pub(super) struct PipelineState {
    load: RecordGenerator,
    sources: BTreeMap<u64, Source>,
}

/// The source of a result. A record whose `send` was retried may be in its stream twice, so the position is kept
/// too.
#[derive(Debug)]
struct Source {
    id: u64,
    place: (Partition, Position),
}

impl Pipeline {
    /// Creates a pipeline, which continues the one `before`.
    pub(super) fn new(
        world: &World,
        producer: Producer,
        once: bool,
        before: Option<PipelineState>,
    ) -> Self {
        let PipelineState { load, sources } = before.unwrap_or_else(|| PipelineState {
            load: RecordGenerator::new(&world.history, producer.stream(), FIRST_ID),
            sources: BTreeMap::new(),
        });
        Self {
            load: Mutex::new(load),
            incarnations: world.incarnations.clone(),
            producer,
            once,
            sources: Mutex::new(sources),
        }
    }

    /// Closes it, and returns its state.
    pub(super) async fn close(&self, world: &World) -> PipelineState {
        let closed = self.producer.close().await;
        world.expect("close the producer of the pipeline", closed);
        let none = RecordGenerator::new(&world.history, self.producer.stream(), FIRST_ID);
        PipelineState {
            load: mem::replace(&mut lock(&self.load), none),
            sources: mem::take(&mut lock(&self.sources)),
        }
    }

    /// Creates the result for `source`: a tombstone from a tombstone.
    pub(super) fn transform(&self, source: u64, delivery: &Delivery) -> Record {
        let key = delivery.key().map(|key| String::from_utf8_lossy(key));
        let (id, record) = lock(&self.load).next_with(key.as_deref(), |mut record| {
            record.payload = record.payload.filter(|_| !delivery.is_tombstone());
            record
        });
        let place = (self.incarnations.partition(delivery), delivery.position());
        lock(&self.sources).insert(id, Source { id: source, place });
        record
    }

    /// Finds results that the pipeline lost or reordered: each record that the group settled must have a stored
    /// result, and the results of each key must be in the order of their sources, except for redeliveries. With the
    /// exactly-once guarantee, no result may be stored twice.
    pub(super) fn check(&self, group: &str, trims: bool, entries: &[Entry]) -> Vec<String> {
        let reset = |event: &Event| match event {
            Event::Reset { group: reset, .. } => **reset == *group,
            _ => false,
        };
        let reset = entries.iter().any(|entry| reset(&entry.event));
        let remapped = |event: &Event| matches!(event, Event::Remapped { .. });
        let ordered = !reset && !entries.iter().any(|entry| remapped(&entry.event));
        // Whether the readers have seen all published results.
        let complete = !trims && !entries.iter().any(|entry| {
            matches!(&entry.event, Event::Reset { stream, skips: true, .. } if **stream == *self.producer.stream())
        });
        let sources = lock(&self.sources);
        let mut deleted = BTreeSet::new();
        let mut settled = BTreeSet::new();
        // A result that was given up at first may be published late, when its record is delivered again.
        let mut given_up = BTreeSet::new();
        let mut sequences = BTreeMap::new();
        let mut places = BTreeMap::new();
        for Entry { event, .. } in entries {
            match event {
                Event::Sent {
                    stream,
                    id,
                    key,
                    sequence,
                    ..
                } => {
                    sequences.insert(*id, (stream, key, *sequence));
                }
                Event::Deleted { stream, .. } => {
                    deleted.insert(stream);
                }
                Event::Ended { handling, outcome } if *handling.by.group == *group => {
                    match outcome {
                        Outcome::Acked => _ = settled.insert(handling.id),
                        Outcome::GaveUp => {
                            given_up.insert(handling.id);
                            // Its result was not stored when its owner ended, and is no longer required.
                            settled.remove(&handling.id);
                        }
                        Outcome::Failed | Outcome::Dropped => {}
                    }
                }
                Event::Began(handling) => {
                    if let Some(source) = sources.get(&handling.id) {
                        places.insert((&handling.by.partition, handling.position), source);
                    }
                }
                _ => {}
            }
        }
        let arrived: BTreeSet<u64> = places.values().map(|source| source.id).collect();
        // A result that waits for its checkpoint is lost with its record when a reset skips that.
        let owed = complete && !(self.once && reset);
        // Records that the source still held when it was deleted are lost with it.
        let is_deleted = |id: &u64| {
            let sent = sequences.get(id);
            sent.is_some_and(|(stream, ..)| deleted.contains(stream))
        };
        let lost = settled
            .difference(&arrived)
            .filter(|id| owed && !is_deleted(id));
        let mut problems: Vec<String> = lost
            .map(|source| {
                format!("the pipeline settled record {source} and published nothing for it")
            })
            .collect();
        if self.once && !reset {
            let mut firsts = BTreeMap::new();
            for (place, source) in &places {
                if let Some((partition, position)) = firsts.insert(&source.place, place) {
                    let id = source.id;
                    problems.push(format!(
                        "the pipeline published record {id} at {partition}@{position} and again"
                    ));
                }
            }
        }
        let mut newest = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for ((partition, position), Source { id: source, .. }) in places {
            let Some((stream, Some(key), sequence)) = sequences.get(source) else {
                continue;
            };
            if !(ordered && complete) || given_up.contains(source) || !seen.insert(source) {
                continue;
            }
            let newest = newest.entry((partition, stream, key)).or_insert(0);
            if *sequence < *newest {
                problems.push(format!(
                    "the pipeline published record {source} of {key} at {partition}@{position} after a later one"
                ));
            }
            *newest = (*newest).max(*sequence);
        }
        problems
    }
}
