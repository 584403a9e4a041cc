//! Members that are dropped or closed while a revocation is pending, with unsettled records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::drain::{Drain, NextOwner, begin};
use crate::fixture::{Fixture, QUICK, SESSION, TIMEOUT, runtime};
use crate::threads::{drop_at_once, in_time};

/// The others do not wait for a member that has left as they wait for a silent one.
const LEFT: Duration = Duration::from_secs(SESSION.as_secs() / 2);

/// The next owner begins, and the member's threads end, without waiting for the session's end.
async fn is_gone(
    what: &str,
    since: Instant,
    threads: &crate::threads::Threads,
    mut next_owner: NextOwner,
) {
    threads.have_ended(LEFT).await;
    let ended = since.elapsed();
    next_owner.takes_all().await;
    let taken = since.elapsed();
    println!("{what}: its threads had ended after {ended:?}, all was taken after {taken:?}");
    assert!(taken < LEFT, "the next owner waited for {taken:?}");
    next_owner.close().await;
}

pub(crate) async fn dropped(fixture: Arc<Fixture>) {
    let (drain, next_owner) = begin(&fixture, TIMEOUT, QUICK).await;
    let Drain {
        client,
        consumer,
        held,
        threads,
        ..
    } = drain;
    let since = Instant::now();
    drop_at_once("the member", (consumer, client));
    is_gone("dropped", since, &threads, next_owner).await;
    // They belong to the next owner, and were settled there.
    held.into_iter().for_each(|held| held.ack());
}

pub(crate) async fn closed(fixture: Arc<Fixture>) {
    const DRAIN: Duration = Duration::from_secs(3);
    let (drain, next_owner) = begin(&fixture, DRAIN, QUICK).await;
    let Drain {
        client,
        consumer,
        held,
        threads,
        ..
    } = drain;
    let since = Instant::now();
    let closed = consumer.close().await;
    println!("closed after {:?}: {closed:?}", since.elapsed());
    assert!(since.elapsed() < DRAIN + LEFT);
    assert!(
        held.iter().all(|held| held.is_lost()),
        "they are delivered again"
    );
    drop(client);
    is_gone("closed", Instant::now(), &threads, next_owner).await;
}

/// Like a program that ends on request without closing its clients.
pub(crate) async fn runtime_dropped(fixture: Arc<Fixture>) {
    let other = runtime();
    let begun = {
        let fixture = fixture.clone();
        other.spawn(async move { begin(&fixture, TIMEOUT, QUICK).await })
    };
    let (drain, next_owner) = begun.await.expect("it does not panic");
    // Their tasks are dropped with their runtime.
    let NextOwner { client, group, .. } = next_owner;
    let threads = drain.threads.clone();
    let since = Instant::now();
    in_time("a runtime with a member in a drain", || drop(other));
    let took = since.elapsed();
    println!("the runtime ended after {took:?}");
    assert!(took < LEFT);
    drop(drain);
    threads.have_ended(LEFT).await;
    drop((client, group));
}
