//! The unpublished output of one partition of a pipeline.
//!
//! Handlers end in any order, but a checkpoint must be published with the output of exactly the
//! records below it. Output waits here: in a list when all records before it are settled, and by
//! number otherwise.
//!
//! Output is kept with its delivery. If the broker refuses the output, that delivery has failed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{AddAssign, SubAssign};

use crate::{Delivery, Position, Record};

#[derive(Debug)]
pub(crate) struct OutputBuffer {
    /// The deliveries below the watermark that have output, in their order, each with the number of
    /// its output records.
    origins: VecDeque<(Origin, usize)>,
    /// The output of these, one delivery after the other.
    records: VecDeque<Record>,
    /// The amount of output in `records`.
    ready: Size,
    /// The output of deliveries above the watermark.
    out_of_order: BTreeMap<u64, (Origin, Vec<Record>)>,
    /// The amount of output in `out_of_order`.
    out_of_order_size: Size,
    /// Whether some output was taken and is being published.
    under_way: bool,
}

/// The output of some deliveries, in their order.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    /// The deliveries, each with the number of its output records.
    origins: Vec<(Origin, usize)>,
    /// All records, one delivery after the other.
    records: Vec<Record>,
    size: Size,
}

/// The delivery of output.
///
/// It keeps the batch that it was received with, until its output is published or was put back.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) number: u64,
    pub(crate) delivery: Delivery,
    /// The position of the record before it: up to here its partition may be checkpointed without it.
    pub(crate) before: Option<Position>,
}

/// An amount of output. Its bytes include those of its deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) records: u64,
    pub(crate) bytes: usize,
}

impl Size {
    const NONE: Self = Self {
        records: 0,
        bytes: 0,
    };

    fn of(origin: &Origin, records: &[Record]) -> Self {
        let bytes: usize = records.iter().map(Record::size).sum();
        Self {
            records: records.len() as u64,
            bytes: origin.delivery.size() + bytes,
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

impl Outputs {
    fn new(origins: Vec<(Origin, usize)>, records: Vec<Record>) -> Self {
        let mut size = Size::default();
        let mut rest = &records[..];
        for (origin, count) in &origins {
            let (own, others) = rest.split_at(*count);
            size += Size::of(origin, own);
            rest = others;
        }
        Self {
            origins,
            records,
            size,
        }
    }

    pub(crate) fn append(&mut self, mut more: Self) {
        self.size += more.size;
        self.origins.append(&mut more.origins);
        self.records.append(&mut more.records);
    }

    /// Removes and returns everything after the first `deliveries`.
    pub(crate) fn split_off(&mut self, deliveries: usize) -> Self {
        let origins = self.origins.split_off(deliveries);
        let records: usize = origins.iter().map(|(_, records)| records).sum();
        let records = self.records.split_off(self.records.len() - records);
        let rest = Self::new(origins, records);
        self.size -= rest.size;
        rest
    }

    /// Returns the number of deliveries.
    pub(crate) fn deliveries(&self) -> usize {
        self.origins.len()
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// Returns the last delivery.
    pub(crate) fn last(&self) -> Option<&Origin> {
        self.origins.last().map(|(origin, _)| origin)
    }
}

impl OutputBuffer {
    pub(crate) const fn new() -> Self {
        Self {
            origins: VecDeque::new(),
            records: VecDeque::new(),
            ready: Size::NONE,
            out_of_order: BTreeMap::new(),
            out_of_order_size: Size::NONE,
            under_way: false,
        }
    }

    /// Adds the output of a delivery that is settled.
    pub(crate) fn push(&mut self, origin: Origin, watermark: u64, records: Vec<Record>) -> Size {
        let size = Size::of(&origin, &records);
        if origin.number < watermark && self.out_of_order.is_empty() {
            self.push_ready(origin, size, records);
        } else {
            self.out_of_order_size += size;
            self.out_of_order.insert(origin.number, (origin, records));
        }
        self.advance(watermark);
        size
    }

    /// Records that all numbers below `watermark` are settled.
    pub(crate) fn advance(&mut self, watermark: u64) {
        while let Some(first) = self.out_of_order.first_entry() {
            if *first.key() >= watermark {
                break;
            }
            let (origin, records) = first.remove();
            let size = Size::of(&origin, &records);
            self.out_of_order_size -= size;
            self.push_ready(origin, size, records);
        }
    }

    fn push_ready(&mut self, origin: Origin, size: Size, records: Vec<Record>) {
        self.ready += size;
        self.origins.push_back((origin, records.len()));
        self.records.extend(records);
    }

    /// Returns the amount of output of deliveries above the watermark.
    pub(crate) fn out_of_order_size(&self) -> Size {
        self.out_of_order_size
    }

    /// Returns whether all output is published.
    pub(crate) fn is_published(&self) -> bool {
        !self.under_way && self.origins.is_empty() && self.out_of_order.is_empty()
    }

    /// Takes the output below `watermark`, in order.
    pub(crate) fn take_below(&mut self, watermark: u64) -> Outputs {
        self.advance(watermark);
        self.under_way = true;
        Outputs {
            origins: Vec::from(std::mem::take(&mut self.origins)),
            records: Vec::from(std::mem::take(&mut self.records)),
            size: std::mem::take(&mut self.ready),
        }
    }

    /// Takes the output of the first deliveries. All of them are below the watermark.
    pub(crate) fn take_first(&mut self, deliveries: usize) -> Outputs {
        self.under_way = true;
        let origins: Vec<_> = self.origins.drain(..deliveries).collect();
        let records: usize = origins.iter().map(|(_, records)| records).sum();
        let outputs = Outputs::new(origins, self.records.drain(..records).collect());
        self.ready -= outputs.size;
        outputs
    }

    /// Records that the output that was taken last is published, or dropped.
    pub(crate) fn published(&mut self) {
        self.under_way = false;
    }

    /// Puts back the output that was taken last and could not be published. It may wait for a long time now, so
    /// batches that are kept by only a few deliveries are released.
    pub(crate) fn put_back(&mut self, outputs: Outputs) {
        self.under_way = false;
        self.ready += outputs.size;
        for origin in outputs.origins.into_iter().rev() {
            self.origins.push_front(origin);
        }
        for record in outputs.records.into_iter().rev() {
            self.records.push_front(record);
        }
        self.detach_few();
    }

    /// Copies the deliveries that are less than half of their batch, so that the memory of all is at most
    /// about twice the counted amount. Otherwise output of few deliveries would keep the batches of all others.
    fn detach_few(&mut self) {
        let origins = self.origins.make_contiguous();
        for of_batch in
            origins.chunk_by_mut(|(one, _), (next, _)| one.delivery.shares_batch(&next.delivery))
        {
            let all = of_batch[0].0.delivery.batch_len();
            if of_batch.len() * 2 < all {
                of_batch
                    .iter_mut()
                    .for_each(|(origin, _)| origin.delivery.detach());
            }
        }
    }

    pub(crate) fn size(&self) -> Size {
        let mut size = self.ready;
        size += self.out_of_order_size;
        size
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::consumer::delivery::{FetchedBatch, Ownership};
    use crate::driver::StoredRecord;
    use crate::{Epoch, Headers, Partition};

    /// Returns the origin for a number. Its record has one byte.
    fn origin(number: u64) -> Origin {
        let record = StoredRecord {
            position: Position::from(number),
            timestamp: SystemTime::UNIX_EPOCH,
            key: None,
            payload: Some("x".into()),
            headers: Headers::new(),
        };
        let ownership = Arc::new(Ownership::new(Partition::new("s", "0"), Epoch(1), None));
        let batch = Arc::new(FetchedBatch::new(ownership, vec![record]));
        Origin {
            number,
            delivery: Delivery::new(batch, 0, 1),
            before: None,
        }
    }

    fn push(outputs: &mut OutputBuffer, number: u64, watermark: u64, names: &str) {
        let records = names.chars().map(|name| Record::new(name.to_string()));
        outputs.push(origin(number), watermark, records.collect());
    }

    fn names(outputs: &Outputs) -> String {
        let payloads = outputs
            .records()
            .iter()
            .filter_map(|record| record.payload.as_deref());
        payloads.map(String::from_utf8_lossy).collect()
    }

    #[test]
    fn gives_out_what_lies_below_the_watermark_in_order() {
        let mut outputs = OutputBuffer::new();
        push(&mut outputs, 2, 0, "c");
        push(&mut outputs, 3, 0, "de");
        assert_eq!(names(&outputs.take_below(0)), "");
        push(&mut outputs, 0, 1, "a");
        assert_eq!(names(&outputs.take_below(1)), "a");
        push(&mut outputs, 1, 4, "b");
        push(&mut outputs, 5, 4, "f");
        assert_eq!(names(&outputs.take_below(4)), "bcde");
        assert_eq!(
            outputs.size(),
            Size {
                records: 1,
                bytes: 2
            }
        );
        outputs.advance(6);
        assert_eq!(outputs.out_of_order_size(), Size::default());
        assert_eq!(names(&outputs.take_below(6)), "f");
        assert_eq!(outputs.size(), Size::default());
    }

    #[test]
    fn what_is_put_back_comes_first() {
        let mut outputs = OutputBuffer::new();
        push(&mut outputs, 0, 1, "ab");
        let taken = outputs.take_below(1);
        push(&mut outputs, 1, 2, "c");
        outputs.put_back(taken);
        assert_eq!(names(&outputs.take_below(2)), "abc");
    }

    #[test]
    fn is_split_between_deliveries() {
        let mut outputs = OutputBuffer::new();
        push(&mut outputs, 0, 3, "ab");
        push(&mut outputs, 1, 3, "c");
        push(&mut outputs, 2, 3, "def");
        let mut first = outputs.take_first(2);
        assert_eq!((names(&first), first.deliveries()), ("abc".into(), 2));
        assert_eq!(
            first.size(),
            Size {
                records: 3,
                bytes: 5
            }
        );
        assert_eq!(first.last().unwrap().number, 1);
        let second = first.split_off(1);
        assert_eq!((names(&first), names(&second)), ("ab".into(), "c".into()));
        assert_eq!(
            outputs.size(),
            Size {
                records: 3,
                bytes: 4
            }
        );
        outputs.put_back(second);
        assert_eq!(names(&outputs.take_below(3)), "cdef");
        assert_eq!(outputs.size(), Size::default());
    }
}
