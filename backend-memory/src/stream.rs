//! A stream: its partitions, their lineage and their routing.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_core::Partition;
use millstream_core::driver::key_hash;

use crate::error::BrokerError;
use crate::ids::{GroupId, MemberId, PartitionId, PartitionRef, StreamId};
use crate::log::Log;
use crate::rate_limit::Gcra;
use crate::routing::Routing;

#[derive(Debug)]
pub(crate) struct StreamPartition {
    pub(crate) name: Partition,
    pub(crate) log: Log,
    pub(crate) open: bool,
    pub(crate) parents: Vec<PartitionId>,
    /// Members that have read everything and wait for more: at most one of each group, the owner.
    pub(crate) waiters: Vec<(GroupId, MemberId)>,
    pub(crate) rate: Gcra,
}

impl StreamPartition {
    /// Registers a member to be woken. It replaces a previous owner of its group.
    pub(crate) fn wait(&mut self, group: GroupId, member: MemberId) {
        match self.waiters.iter_mut().find(|waiter| waiter.0 == group) {
            Some(waiter) => waiter.1 = member,
            None => self.waiters.push((group, member)),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) name: Arc<str>,
    /// The public id, unique over all brokers.
    pub(crate) public_id: Arc<str>,
    pub(crate) partitions: Vec<StreamPartition>,
    routing: Routing,
    /// The open partitions, for records without a key.
    open: Vec<PartitionId>,
    round_robin: usize,
    resharded: bool,
}

impl Stream {
    pub(crate) fn new(name: Arc<str>, public_id: Arc<str>, partitions: usize) -> Self {
        let mut stream = Self {
            name,
            public_id,
            partitions: Vec::with_capacity(partitions),
            routing: Routing::modulo(partitions),
            open: Vec::new(),
            round_robin: 0,
            resharded: false,
        };
        for _ in 0..partitions {
            stream.add(Vec::new());
        }
        stream
    }

    /// Returns the partition of a record. Records without a key are distributed round robin over open partitions.
    #[inline]
    pub(crate) fn route(&mut self, key: Option<&[u8]>) -> PartitionId {
        match key {
            Some(key) => self.routing.route(key_hash(key)),
            None => {
                self.round_robin = (self.round_robin + 1) % self.open.len();
                self.open[self.round_robin]
            }
        }
    }

    pub(crate) fn get(&self, partition: PartitionId) -> Result<&StreamPartition, BrokerError> {
        let found = self.partitions.get(partition as usize);
        found.ok_or(BrokerError::UnknownPartition)
    }

    /// Checks whether the partition can be split.
    pub(crate) fn check_split(&self, parent: PartitionId) -> Result<(), BrokerError> {
        self.check_open(parent)?;
        let child = self.partitions.len() as PartitionId;
        match self.routing.clone().split(parent, child, child + 1) {
            true => Ok(()),
            false => Err(BrokerError::SplitSingleHash),
        }
    }

    pub(crate) fn check_merge(
        &self,
        one: PartitionId,
        other: PartitionId,
    ) -> Result<(), BrokerError> {
        self.check_open(one)?;
        self.check_open(other)?;
        match one == other {
            true => Err(BrokerError::MergeWithItself),
            false => Ok(()),
        }
    }

    pub(crate) fn check_growth(&self, partitions: usize) -> Result<(), BrokerError> {
        let have = self.partitions.len();
        match self.resharded {
            true => Err(BrokerError::AddAfterReshard),
            false if partitions <= have => Err(BrokerError::AddNothing { have }),
            false => Ok(()),
        }
    }

    /// Splits a partition that was checked. Returns the waiters of the parent, which must be woken for its
    /// end.
    pub(crate) fn split(&mut self, parent: PartitionId) -> Vec<(GroupId, MemberId)> {
        let low = self.add(vec![parent]);
        let high = self.add(vec![parent]);
        self.routing.split(parent, low, high);
        self.close(parent)
    }

    /// Merges partitions that were checked. Returns the waiters of both, which must be woken for their end.
    pub(crate) fn merge(
        &mut self,
        one: PartitionId,
        other: PartitionId,
    ) -> [(PartitionId, Vec<(GroupId, MemberId)>); 2] {
        let child = self.add(vec![one.min(other), one.max(other)]);
        self.routing.merge(one, other, child);
        [one, other].map(|parent| (parent, self.close(parent)))
    }

    /// Grows a stream that was checked. Keys are redistributed.
    pub(crate) fn grow(&mut self, partitions: usize) {
        while self.partitions.len() < partitions {
            self.add(Vec::new());
        }
        self.routing = Routing::modulo(partitions);
    }

    fn check_open(&self, partition: PartitionId) -> Result<(), BrokerError> {
        match self.get(partition)?.open {
            true => Ok(()),
            false => Err(BrokerError::PartitionClosed),
        }
    }

    fn add(&mut self, parents: Vec<PartitionId>) -> PartitionId {
        let id = self.partitions.len() as PartitionId;
        self.partitions.push(StreamPartition {
            name: Partition::new(self.name.clone(), id.to_string()),
            log: Log::default(),
            open: true,
            parents,
            waiters: Vec::new(),
            rate: Gcra::default(),
        });
        self.open.push(id);
        id
    }

    fn close(&mut self, parent: PartitionId) -> Vec<(GroupId, MemberId)> {
        self.resharded = true;
        self.open.retain(|open| *open != parent);
        let closed = &mut self.partitions[parent as usize];
        closed.open = false;
        std::mem::take(&mut closed.waiters)
    }
}

/// All streams, by number and by name.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    streams: Vec<Option<Stream>>,
    names: BTreeMap<Arc<str>, StreamId>,
}

impl Catalog {
    /// Returns the number of the next stream.
    pub(crate) fn next_id(&self) -> StreamId {
        self.streams.len() as StreamId
    }

    pub(crate) fn add(&mut self, stream: Stream) -> StreamId {
        let id = self.next_id();
        self.names.insert(stream.name.clone(), id);
        self.streams.push(Some(stream));
        id
    }

    pub(crate) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.streams.get_mut(id as usize)?.take()?;
        self.names.remove(&stream.name);
        Some(stream)
    }

    pub(crate) fn id(&self, name: &str) -> Result<StreamId, BrokerError> {
        self.names
            .get(name)
            .copied()
            .ok_or(BrokerError::UnknownStream)
    }

    pub(crate) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(id as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(id as usize)?.as_mut()
    }

    pub(crate) fn partition(&self, partition_ref: PartitionRef) -> Option<&StreamPartition> {
        self.get(partition_ref.0)?
            .partitions
            .get(partition_ref.1 as usize)
    }

    pub(crate) fn partition_mut(
        &mut self,
        partition_ref: PartitionRef,
    ) -> Option<&mut StreamPartition> {
        self.get_mut(partition_ref.0)?
            .partitions
            .get_mut(partition_ref.1 as usize)
    }

    /// Finds a partition by its public name.
    pub(crate) fn partition_ref(&self, partition: &Partition) -> Result<PartitionRef, BrokerError> {
        let id = self.id(partition.stream())?;
        let number: PartitionId = partition
            .id()
            .parse()
            .map_err(|_| BrokerError::UnknownPartition)?;
        let found = self
            .partition((id, number))
            .filter(|found| found.name == *partition);
        found
            .map(|_| (id, number))
            .ok_or(BrokerError::UnknownPartition)
    }

    /// Returns names and numbers, sorted by name.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&Arc<str>, StreamId)> {
        self.names.iter().map(|(name, id)| (name, *id))
    }
}
