use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::world::lock;

/// The memberships of a group that have not ended, by name. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Memberships(Arc<Mutex<BTreeSet<String>>>);

/// A membership that ends when this is dropped, because it has ended or its task is killed.
#[derive(Debug)]
#[must_use = "the membership ends when this is dropped"]
pub(super) struct LiveMembership {
    all: Memberships,
    name: String,
}

impl Memberships {
    pub(super) fn begin(&self, name: &str) -> LiveMembership {
        lock(&self.0).insert(name.to_owned());
        LiveMembership {
            all: self.clone(),
            name: name.to_owned(),
        }
    }

    pub(super) fn names(&self) -> BTreeSet<String> {
        lock(&self.0).clone()
    }

    /// Returns whether one of `names` has not ended.
    pub(super) fn has_any(&self, names: &BTreeSet<String>) -> bool {
        !lock(&self.0).is_disjoint(names)
    }
}

impl Drop for LiveMembership {
    fn drop(&mut self) {
        lock(&self.all.0).remove(&self.name);
    }
}
