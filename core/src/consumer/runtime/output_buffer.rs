//! The unpublished output of one partition of a pipeline.
//!
//! Handlers end in any order, but a checkpoint must be published with the output of exactly the
//! records below it. Output waits here: in a list when all records before it are settled, and by
//! number otherwise.

use std::collections::BTreeMap;
use std::ops::{AddAssign, SubAssign};

use crate::Record;

#[derive(Debug, Default)]
pub(crate) struct OutputBuffer {
    /// The output of records below the watermark, in their order.
    ready: Vec<Record>,
    /// The output of records above the watermark.
    out_of_order: BTreeMap<u64, Vec<Record>>,
    /// How much that is.
    ahead: Size,
    /// Whether some of it was taken and is being published.
    under_way: bool,
}

/// An amount of output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) records: u64,
    pub(crate) bytes: usize,
}

impl Size {
    pub(crate) fn of(records: &[Record]) -> Self {
        Self {
            records: records.len() as u64,
            bytes: records.iter().map(Record::size).sum(),
        }
    }
}

impl AddAssign for Size {
    fn add_assign(&mut self, more: Self) {
        self.records += more.records;
        self.bytes += more.bytes;
    }
}

impl SubAssign for Size {
    fn sub_assign(&mut self, less: Self) {
        self.records -= less.records;
        self.bytes -= less.bytes;
    }
}

impl OutputBuffer {
    /// Adds the output of `number`, which is settled.
    pub(crate) fn push(&mut self, number: u64, watermark: u64, mut records: Vec<Record>) {
        if number < watermark && self.out_of_order.is_empty() {
            self.ready.append(&mut records);
        } else if !records.is_empty() {
            self.ahead += Size::of(&records);
            self.out_of_order.insert(number, records);
        }
        self.advance(watermark);
    }

    /// Records that all numbers below `watermark` are settled.
    fn advance(&mut self, watermark: u64) {
        while let Some(first) = self.out_of_order.first_entry() {
            if *first.key() >= watermark {
                break;
            }
            let records = first.remove();
            self.ahead -= Size::of(&records);
            self.ready.extend(records);
        }
    }

    /// Returns the amount of output of records above the watermark.
    pub(crate) fn ahead(&self) -> Size {
        self.ahead
    }

    /// Returns whether all output is published.
    pub(crate) fn is_published(&self) -> bool {
        !self.under_way && self.ready.is_empty() && self.out_of_order.is_empty()
    }

    /// Takes the output below `watermark`, in order.
    pub(crate) fn take(&mut self, watermark: u64) -> Vec<Record> {
        self.advance(watermark);
        self.under_way = true;
        std::mem::take(&mut self.ready)
    }

    /// Records that the output that was taken last is published.
    pub(crate) fn published(&mut self) {
        self.under_way = false;
    }

    /// Puts back the output that was taken last and could not be published.
    pub(crate) fn put_back(&mut self, mut records: Vec<Record>) {
        self.under_way = false;
        records.append(&mut self.ready);
        self.ready = records;
    }

    pub(crate) fn size(&self) -> Size {
        let mut size = Size::of(&self.ready);
        size += self.ahead;
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(names: &str) -> Vec<Record> {
        names
            .chars()
            .map(|name| Record::new(name.to_string()))
            .collect()
    }

    fn names(records: &[Record]) -> String {
        let payloads = records
            .iter()
            .filter_map(|record| record.payload.as_deref());
        payloads.map(String::from_utf8_lossy).collect()
    }

    #[test]
    fn gives_out_what_lies_below_the_watermark_in_order() {
        let mut outputs = OutputBuffer::default();
        outputs.push(2, 0, records("c"));
        outputs.push(3, 0, records("de"));
        assert_eq!(names(&outputs.take(0)), "");
        outputs.push(0, 1, records("a"));
        assert_eq!(names(&outputs.take(1)), "a");
        outputs.push(1, 4, records("b"));
        outputs.push(5, 4, records("f"));
        assert_eq!(names(&outputs.take(4)), "bcde");
        assert_eq!(outputs.size().records, 1);
        outputs.push(4, 6, Vec::new());
        assert_eq!(names(&outputs.take(6)), "f");
        assert_eq!(outputs.size(), Size::default());
    }

    #[test]
    fn what_is_put_back_comes_first() {
        let mut outputs = OutputBuffer::default();
        outputs.push(0, 1, records("ab"));
        let taken = outputs.take(1);
        outputs.push(1, 2, records("c"));
        outputs.put_back(taken);
        assert_eq!(names(&outputs.take(2)), "abc");
    }
}
