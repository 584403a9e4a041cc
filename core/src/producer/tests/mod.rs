//! Tests of the producer with a driver with scripted results, under paused time.

mod bounds;
mod close;
mod events;
mod fake;
mod order;
mod random;
mod threads;

use crate::driver::Pipelining;
use crate::{Producer, Receipt, Record};

const ONE: Pipelining = Pipelining::ByKey { calls: 1 };
const FOUR: Pipelining = Pipelining::ByKey { calls: 4 };
const ALL: [Pipelining; 3] = [Pipelining::Ordered, ONE, FOUR];

/// Sends a record named `name`.
async fn send(
    producer: &Producer,
    key: impl Into<Option<&'static str>>,
    name: &'static str,
) -> Receipt {
    let record = Record::new(name);
    let record = match key.into() {
        Some(key) => record.key(key),
        None => record,
    };
    producer.send(record).await.unwrap()
}
