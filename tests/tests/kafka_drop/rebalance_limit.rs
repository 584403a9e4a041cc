//! A hanging key delays the rebalance that revokes its partition, and with it the partitions that stay.

use std::sync::Arc;
use std::time::Instant;

use millstream_kafka::Config;

use crate::drain::{PER_KEY, begin_within, text};
use crate::fixture::{Fixture, QUICK, TIMEOUT, pull, send};

/// The delay is the limit of rebalances, regardless of the group's drain timeout.
pub(crate) async fn of_a_stuck_key(fixture: Arc<Fixture>) {
    let limit = Config::default().consumer.rebalance_drain_timeout;
    let begun = Instant::now();
    let (mut drain, next_owner) = begin_within(&fixture, TIMEOUT, limit, QUICK).await;
    let draining = Instant::now();
    // The keys of the partition that stays continue.
    let (stuck, held): (Vec<_>, Vec<_>) = { drain.held }
        .into_iter()
        .partition(|held| held.partition().to_string() == drain.revoked);
    assert!(!stuck.is_empty() && !held.is_empty(), "one of two moves");
    held.into_iter().for_each(|held| held.ack());
    send(&next_owner.client, &next_owner.stream, PER_KEY..PER_KEY + 1).await;
    let new = format!("/{PER_KEY}");
    loop {
        let record = pull(&mut drain.consumer, 1).await.remove(0);
        let is_new = text(&record).ends_with(&new);
        record.ack();
        if is_new {
            break;
        }
    }
    let waited = draining.elapsed();
    println!("{waited:?} of {:?}", begun.elapsed());
    assert!(
        waited < 2 * limit,
        "what stays stood still for {waited:?}, the limit is {limit:?}"
    );
    assert!(
        stuck.iter().all(|held| held.is_lost()),
        "what hangs was given up"
    );
}
