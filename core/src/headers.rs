use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

type Entry = (Arc<str>, Bytes);

/// The headers of a record: an ordered list of names and values, in which a name may be repeated.
///
/// Cheap to clone; an empty list holds no memory.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Option<Arc<Vec<Entry>>>);

impl Headers {
    /// Makes an empty list.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Appends a header.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<Bytes>) {
        let list = self.0.get_or_insert_default();
        Arc::make_mut(list).push((name.into().into(), value.into()));
    }

    /// The value of the last header called `name`: where a name is repeated, the last one counts.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.entries()
            .iter()
            .rev()
            .find(|(n, _)| **n == *name)
            .map(|(_, value)| value)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Bytes)> {
        self.entries().iter().map(|(name, value)| (&**name, value))
    }

    /// How many headers there are.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all names and values.
    pub fn size(&self) -> usize {
        self.iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    }

    fn entries(&self) -> &[Entry] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<N: Into<String>, V: Into<Bytes>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(iter: I) -> Self {
        let list: Vec<_> = iter
            .into_iter()
            .map(|(name, value)| (name.into().into(), value.into()))
            .collect();
        Self((!list.is_empty()).then(|| Arc::new(list)))
    }
}
