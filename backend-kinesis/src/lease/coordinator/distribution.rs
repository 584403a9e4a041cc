//! Notices streams that begin to distribute records themselves while members run.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::LeaseCoordinator;
use crate::lease::options::LeaseEvent;
use crate::stream::StreamInfo;

/// Returns the names of those that distribute records themselves.
pub(super) fn unordered(infos: &[StreamInfo]) -> BTreeSet<Arc<str>> {
    let unordered = infos.iter().filter(|info| info.distributes);
    unordered.map(|info| info.name.clone()).collect()
}

impl LeaseCoordinator {
    /// Reports a stream once when it begins to distribute records itself.
    pub(super) fn on_described(&mut self, info: StreamInfo) {
        if !info.distributes {
            self.unordered.remove(&info.name);
        } else if self.unordered.insert(info.name.clone()) {
            info.warn_of_distribution();
            self.emit(LeaseEvent::Unordered(info));
        }
    }
}
