//! Members that go while a revocation waits for its answer: the drain is not over, since records are
//! held that nobody settles.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::drain::{Drain, Heir, begin};
use crate::ground::{Ground, PATIENCE, QUICK, SESSION, runtime};
use crate::threads::{drop_at_once, in_time};

/// One that left is not waited for as one that fell silent is.
const LEFT: Duration = Duration::from_secs(SESSION.as_secs() / 2);

/// The heir begins, and the member's threads end, without waiting for the session's end.
async fn is_gone(what: &str, since: Instant, threads: &crate::threads::Threads, mut heir: Heir) {
    threads.have_ended(LEFT).await;
    let ended = since.elapsed();
    heir.takes_all().await;
    let taken = since.elapsed();
    println!("{what}: its threads had ended after {ended:?}, all was taken after {taken:?}");
    assert!(taken < LEFT, "the heir waited for {taken:?}");
    heir.close().await;
}

pub(crate) async fn dropped(ground: Arc<Ground>) {
    let (drain, heir) = begin(&ground, PATIENCE, QUICK).await;
    let Drain {
        client,
        consumer,
        held,
        threads,
        ..
    } = drain;
    let since = Instant::now();
    drop_at_once("the member", (consumer, client));
    is_gone("dropped", since, &threads, heir).await;
    // They are the heir's, and were settled there.
    held.into_iter().for_each(|held| held.ack());
}

pub(crate) async fn closed(ground: Arc<Ground>) {
    const DRAIN: Duration = Duration::from_secs(3);
    let (drain, heir) = begin(&ground, DRAIN, QUICK).await;
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
    assert!(held.iter().all(|held| held.is_lost()), "they come again");
    drop(client);
    is_gone("closed", Instant::now(), &threads, heir).await;
}

/// As a program ends that is asked to, and does not care.
pub(crate) async fn runtime_dropped(ground: Arc<Ground>) {
    let other = runtime();
    let begun = {
        let ground = ground.clone();
        other.spawn(async move { begin(&ground, PATIENCE, QUICK).await })
    };
    let (drain, heir) = begun.await.expect("it does not panic");
    // Their tasks go with their runtime.
    let Heir { client, group, .. } = heir;
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
