//! Deliveries and handles that outlive their member.

use std::sync::Arc;
use std::time::Duration;

use crate::drain::text;
use crate::fixture::{Fixture, KEYS, pull, stream, unique};
use crate::threads::{Threads, drop_at_once};

/// Deliveries, settled or not, keep no part of their client alive.
pub(crate) async fn kept(fixture: Arc<Fixture>) {
    const ENDS: Duration = Duration::from_secs(10);
    let before = Threads::of_clients();
    let client = fixture.client().await;
    let stream = stream(&client, 2).await;
    let group = client.group(unique("group")).stream(stream.as_str());
    let mut consumer = group.join().await.expect("it joins");
    let mut unsettled = pull(&mut consumer, KEYS).await;
    let copies: Vec<_> = unsettled.iter().map(|held| (**held).clone()).collect();
    unsettled.pop().expect("some were pulled").ack();

    drop_at_once("member, group and client", (consumer, group, client));
    let took = before.are_all(ENDS).await;
    println!("its threads had ended after {took:?}");

    for (key, copy) in copies.iter().enumerate() {
        assert!(copy.is_lost(), "{copy:?}");
        assert_eq!(
            text(copy),
            format!("{}/0", text(copy).split('/').next().unwrap_or(""))
        );
        assert!(copy.key().is_some(), "record {key}");
        assert_eq!(copy.stream(), stream);
    }
    // Settling them late has no effect, and does not panic.
    for (index, held) in unsettled.into_iter().enumerate() {
        match index % 3 {
            0 => held.ack(),
            1 => held.nack("too late"),
            _ => drop(held),
        }
    }
}
