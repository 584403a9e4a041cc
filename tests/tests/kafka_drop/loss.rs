//! A session that ends while the member drains. librdkafka reports it only after the revocation has
//! completed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_core::{Consumer, Epoch, Partition, PendingDelivery, Position};
use tokio::time::{sleep, timeout};

use crate::drain::{Drain, LEFT, NextOwner, PER_KEY, begin, text};
use crate::fixture::{Fixture, KEYS, QUICK, SESSION, TIMEOUT, send, until};

/// How soon the loss is detected once that is possible.
const NOTICED: Duration = Duration::from_secs(5);

/// Longer than the loss and its consequences: no drain ends by itself here.
const DRAIN: Duration = TIMEOUT;

async fn all_lost(held: &[PendingDelivery], within: Duration) -> Duration {
    let since = Instant::now();
    let all = async {
        for held in held {
            held.lost().await;
        }
    };
    let lost = timeout(within, all).await;
    assert!(lost.is_ok(), "the loss was not reported within {within:?}");
    since.elapsed()
}

async fn stored(next_owner: &NextOwner) -> Vec<(Partition, Option<Position>, Option<Epoch>)> {
    let group = next_owner.client.group(next_owner.group.as_str());
    let stored = group.checkpoints().await.expect("there are some");
    let stored = stored.into_iter();
    stored
        .map(|one| (one.partition, one.position, one.epoch))
        .collect()
}

/// Records that the member settles after its loss are not checkpointed, and the next owner handles all of them.
async fn ends(drain: Drain, mut next_owner: NextOwner) {
    let since = Instant::now();
    let before = stored(&next_owner).await;
    drain.held.into_iter().for_each(|held| held.ack());
    // The member checkpoints every 50 ms.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        stored(&next_owner).await,
        before,
        "a late checkpoint was stored"
    );
    // It becomes a member again by itself, with a share of the partitions.
    let mut member = drain.consumer;
    // Pulled at once, because unsettled records of a handover delay the next owner's own drain.
    let (old, _) = both_take(&mut member, &mut next_owner, LEFT).await;
    assert!(old.iter().all(|number| !number.ends_with("/0")), "{old:?}");
    let owned = [member.handle(), next_owner.consumer.handle()];
    until("each has a partition", || {
        owned.iter().all(|of| of.partitions().len() == 1)
    })
    .await;
    println!(
        "both own a partition {:?} after the loss was reported",
        since.elapsed()
    );
    send(&next_owner.client, &next_owner.stream, PER_KEY..PER_KEY + 2).await;
    let (_, shares) = both_take(&mut member, &mut next_owner, 2 * KEYS).await;
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    member.close().await.expect("it closes");
    next_owner.close().await;
}

/// Pulls and settles this many different records, and returns how many each of the two had.
async fn both_take(
    member: &mut Consumer,
    next_owner: &mut NextOwner,
    count: usize,
) -> (BTreeSet<String>, [usize; 2]) {
    let (mut taken, mut shares) = (BTreeSet::new(), [0; 2]);
    while taken.len() < count {
        let next = async {
            tokio::select! {
                next = member.next() => (0, next),
                next = next_owner.consumer.next() => (1, next),
            }
        };
        let next = timeout(TIMEOUT, next).await;
        let (who, next) = next.unwrap_or_else(|_| panic!("only {taken:?} came to {shares:?}"));
        let next = next.expect("both continue").expect("neither is closed");
        shares[who] += 1;
        taken.insert(text(&next));
        next.ack();
    }
    (taken, shares)
}

/// By a network that forwards nothing for longer than the session.
pub(crate) async fn frozen(fixture: Arc<Fixture>) {
    let (drain, next_owner) = begin(&fixture, DRAIN, QUICK).await;
    let freeze = SESSION + Duration::from_secs(2);
    drain.connections.freeze(freeze);
    let took = all_lost(&drain.held, freeze + NOTICED).await;
    println!("frozen for {freeze:?}, noticed after {took:?}");
    ends(drain, next_owner).await;
}

/// By the broker, which evicts the member, and the next owner takes over everything at once.
pub(crate) async fn put_out(fixture: Arc<Fixture>) {
    is_put_out(fixture, QUICK).await;
}

/// Like that, but the member returns before the next owner has learned of it, and so is assigned its partitions again.
pub(crate) async fn put_out_and_back(fixture: Arc<Fixture>) {
    is_put_out(fixture, SESSION / 3).await;
}

async fn is_put_out(fixture: Arc<Fixture>, next_owner_heartbeats: Duration) {
    let (drain, next_owner) = begin(&fixture, DRAIN, next_owner_heartbeats).await;
    let kept = drain.held.iter().map(|held| held.partition());
    let kept = kept
        .into_iter()
        .find(|kept| kept.to_string() != drain.revoked);
    let kept = kept.expect("one of two stays").clone();
    fixture.testbed.steal(&next_owner.group, &kept).await;
    let took = all_lost(&drain.held, NOTICED).await;
    println!("evicted, noticed after {took:?}");
    ends(drain, next_owner).await;
}
