use std::sync::Arc;
use std::{fmt, iter, slice};

use bytes::Bytes;

type Entry = (Arc<str>, Option<Bytes>);

/// The headers of a record: an ordered list of names and values.
///
/// A name may be repeated, and a value may be null, which is not the same as empty (Kafka has null
/// header values). Cheap to clone; an empty list holds no memory.
///
/// ```
/// use millstream_core::Headers;
///
/// let mut headers = Headers::from_iter([("trace", "00-4bf9"), ("attempt", "1"), ("attempt", "2")]);
/// headers.push_null("draft");
/// assert_eq!(headers.get_str("attempt"), Some("2"));
/// assert_eq!(headers.get_all("attempt").count(), 2);
/// assert!(headers.contains("draft") && headers.get("draft").is_none());
///
/// headers.remove("attempt");
/// assert_eq!(headers.len(), 2);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Option<Arc<Vec<Entry>>>);

impl Headers {
    /// Creates an empty list.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Appends a header.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<Bytes>) {
        self.append(name.into(), Some(value.into()));
    }

    /// Appends a header with a null value.
    pub fn push_null(&mut self, name: impl Into<String>) {
        self.append(name.into(), None);
    }

    /// Removes all headers called `name`. Returns how many there were.
    pub fn remove(&mut self, name: &str) -> usize {
        let before = self.len();
        self.retain(|other, _| other != name);
        before - self.len()
    }

    /// Keeps the headers for which `keep` returns true, in their order.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, Option<&Bytes>) -> bool) {
        let Some(list) = &mut self.0 else {
            return;
        };
        match Arc::get_mut(list) {
            Some(list) => list.retain(|(name, value)| keep(name, value.as_ref())),
            None => {
                let kept = list
                    .iter()
                    .filter(|(name, value)| keep(name, value.as_ref()))
                    .cloned()
                    .collect();
                *list = Arc::new(kept);
            }
        }
        if list.is_empty() {
            self.0 = None;
        }
    }

    /// Returns the value of the last header called `name`: where a name is repeated, the last one
    /// counts.
    ///
    /// `None` if there is no such header or its value is null; [`contains`](Self::contains)
    /// distinguishes the two.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.find(name)?.1.as_ref()
    }

    /// Returns the value of the last header called `name` as text.
    ///
    /// `None` if there is no such header, or its value is null or not UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Returns the values of all headers called `name`, in order; `None` stands for null.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Option<&'a Bytes>> {
        self.iter()
            .filter(move |(other, _)| *other == name)
            .map(|(_, value)| value)
    }

    /// Returns whether there is a header called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Returns names and values in order; `None` stands for null.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Option<&Bytes>)> {
        self.into_iter()
    }

    /// Returns the number of headers.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Returns whether there are no headers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of bytes of all names and values.
    pub fn size(&self) -> usize {
        self.iter()
            .map(|(name, value)| name.len() + value.map_or(0, Bytes::len))
            .sum()
    }

    fn find(&self, name: &str) -> Option<&Entry> {
        self.entries().iter().rev().find(|(n, _)| **n == *name)
    }

    fn entries(&self) -> &[Entry] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    fn append(&mut self, name: String, value: Option<Bytes>) {
        let list = self.0.get_or_insert_default();
        Arc::make_mut(list).push((name.into(), value));
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a str, Option<&'a Bytes>);
    type IntoIter = iter::Map<slice::Iter<'a, Entry>, fn(&'a Entry) -> Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries()
            .iter()
            .map(|(name, value)| (&**name, value.as_ref()))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in self {
            match value {
                Some(value) => map.entry(&name, value),
                None => map.entry(&name, &format_args!("null")),
            };
        }
        map.finish()
    }
}

/// Collects headers that all have a value.
impl<N: Into<String>, V: Into<Bytes>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(iter: I) -> Self {
        let list: Vec<_> = iter
            .into_iter()
            .map(|(name, value)| (name.into().into(), Some(value.into())))
            .collect();
        Self((!list.is_empty()).then(|| Arc::new(list)))
    }
}

/// Appends headers whose value may be null.
impl<N: Into<String>, V: Into<Bytes>> Extend<(N, Option<V>)> for Headers {
    fn extend<I: IntoIterator<Item = (N, Option<V>)>>(&mut self, iter: I) {
        for (name, value) in iter {
            self.append(name.into(), value.map(Into::into));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Headers {
        let mut headers = Headers::from_iter([("a", "1"), ("b", ""), ("a", "2")]);
        headers.push_null("n");
        headers
    }

    #[test]
    fn the_last_of_a_name_counts() {
        let headers = sample();
        assert_eq!(headers.get_str("a"), Some("2"));
        let all: Vec<_> = headers.get_all("a").flatten().collect();
        assert_eq!(all, ["1", "2"]);
        assert_eq!(headers.get_all("A").count(), 0, "names are case-sensitive");
    }

    #[test]
    fn null_is_neither_empty_nor_absent() {
        let headers = sample();
        assert_eq!((headers.get("n"), headers.contains("n")), (None, true));
        assert_eq!(headers.get_all("n").collect::<Vec<_>>(), [None]);
        assert_eq!(headers.get_str("b"), Some(""));
        assert!(!headers.contains("x"));

        let mut empty = Headers::new();
        empty.push("n", "");
        let mut null = Headers::new();
        null.push_null("n");
        assert_ne!(empty, null);
        assert_eq!((empty.size(), null.size()), (1, 1));
        assert_eq!(format!("{null:?}"), "{\"n\": null}");
    }

    #[test]
    fn text_that_is_not_utf8_is_no_text() {
        let headers = Headers::from_iter([("id", vec![0xff])]);
        assert_eq!(headers.get_str("id"), None);
        assert!(headers.get("id").is_some());
    }

    #[test]
    fn removal_leaves_clones_alone() {
        let before = sample();
        let mut headers = before.clone();
        assert_eq!(headers.remove("a"), 2);
        assert_eq!(headers.remove("a"), 0);
        assert_eq!(before.len(), 4);
        let left: Vec<_> = (&headers).into_iter().collect();
        assert_eq!(left, [("b", Some(&Bytes::new())), ("n", None)]);
        headers.retain(|_, value| value.is_none());
        assert_eq!(headers.len(), 1);
        headers.remove("n");
        assert_eq!(headers, Headers::new(), "an empty list is the empty list");
    }

    #[test]
    fn copies_keep_null() {
        let headers = sample();
        let mut copy = Headers::new();
        copy.extend(headers.iter().map(|(name, value)| (name, value.cloned())));
        assert_eq!(copy, headers);
    }
}
