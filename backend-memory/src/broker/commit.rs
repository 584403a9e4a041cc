//! Committing progress: checkpoints and the completion of closed partitions.

use millstream_core::driver::CheckpointUpdate;
use millstream_core::failpoint;
use millstream_core::{Epoch, Partition};

use super::BrokerState;
use crate::error::BrokerError;
use crate::ids::{GroupId, MemberId};
use crate::journal::{JournalEntry, OffsetCommit};

impl BrokerState {
    pub(crate) fn checkpoint(
        &mut self,
        group: GroupId,
        member: MemberId,
        updates: &[CheckpointUpdate],
    ) -> Vec<Result<(), BrokerError>> {
        let mut results = Vec::with_capacity(updates.len());
        let mut commits = Vec::with_capacity(updates.len());
        for update in updates {
            let fault = self.faults.count_checkpoint();
            let checked = self.check_update(group, member, update);
            results.push(match (checked, fault) {
                (Err(error), _) => Err(error),
                (Ok(_), Some(fault)) if !fault.stored => Err(BrokerError::CheckpointLost),
                (Ok(commit), fault) => {
                    commits.push(commit);
                    fault.map_or(Ok(()), |_| Err(BrokerError::CheckpointLost))
                }
            });
        }
        if commits.is_empty() {
            return results;
        }
        if let Err(error) = self.commit(JournalEntry::Checkpointed { group, commits }) {
            for result in results.iter_mut().filter(|result| result.is_ok()) {
                *result = Err(error.clone());
            }
        }
        results
    }

    /// Returns what an update stores, if the member is permitted to store it.
    pub(crate) fn check_update(
        &self,
        group: GroupId,
        member: MemberId,
        update: &CheckpointUpdate,
    ) -> Result<OffsetCommit, BrokerError> {
        let partition = self.catalog.partition_ref(&update.partition)?;
        match self.groups[group].check_owner(member, partition, update.epoch.0) {
            Err(_) if failpoint!(FenceIgnored) => {}
            checked => checked?,
        }
        let end = self
            .catalog
            .partition(partition)
            .map_or(0, |found| found.log.end());
        let position = update.position;
        let offset = position.offset().filter(|_| position.sub() == 0);
        let offset = offset.filter(|offset| *offset < end);
        Ok(OffsetCommit {
            partition,
            epoch: update.epoch.0,
            next_offset: offset.ok_or(BrokerError::UnknownPosition)? + 1,
        })
    }

    pub(crate) fn complete(
        &mut self,
        group: GroupId,
        member: MemberId,
        partition: &Partition,
        epoch: Epoch,
    ) -> Result<(), BrokerError> {
        let partition = self.catalog.partition_ref(partition)?;
        self.groups[group].check_owner(member, partition, epoch.0)?;
        let owned = self.member_mut(group, member)?.owned.get(&partition);
        if !owned.is_some_and(|owned| owned.ended) {
            return Err(BrokerError::NotEnded);
        }
        let end = self
            .catalog
            .partition(partition)
            .map_or(0, |found| found.log.end());
        self.commit(JournalEntry::Completed {
            group,
            partition,
            end,
        })
    }
}
