//! C5: close and rebalance drain what is in flight, checkpoint, then release: no duplicates, and the
//! next owner starts at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cases;
use crate::Harness;
use crate::fleet::{Fleet, Member};
use crate::history::{Event, Outcome};

cases! {
    c05_rolling_restart_repeats_nothing,
    c05_next_owner_starts_at_once,
    c05_close_settles_what_is_in_flight,
    c05_a_joining_member_repeats_nothing,
    c05_group_that_is_empty_for_a_while_goes_on,
}

pub(super) fn by<'a>(fleet: &'a Fleet, member: &'a str) -> impl Fn() -> usize + 'a {
    let began = move |event: &Event| matches!(event, Event::Began(h) if *h.by.member == *member);
    move || fleet.history.count(began)
}

async fn c05_rolling_restart_repeats_nothing(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 6).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(30, Duration::from_millis(1));
    let start = async |name: String| {
        let starting = Instant::now();
        let member = fleet
            .member(&name)
            .handler_delay(Duration::from_millis(13))
            .start()
            .await;
        fleet
            .until("the member handles", || by(&fleet, &name)() >= 5)
            .await;
        (member, starting.elapsed())
    };
    let mut members: Vec<Member> = Vec::new();
    for index in 0..3 {
        members.push(start(format!("old-{index}")).await.0);
    }
    for index in 0..3 {
        members.remove(0).close().await;
        let (member, took) = start(format!("new-{index}")).await;
        let timing = fleet.harness.timing();
        assert!(
            took < timing.session,
            "it took {took:?} until the new member handled"
        );
        members.push(member);
    }
    background_load.stop().await;
    let summary = fleet.check().await;
    assert_eq!((summary.lost, summary.duplicates), (0, 0), "{summary:?}");
    assert!(summary.handovers >= 6, "{summary:?}");
    for member in members {
        member.close().await;
    }
    fleet.caught_up().await;
}

async fn c05_next_owner_starts_at_once(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(4, Duration::from_millis(2));
    let a = fleet.member("a").start().await;
    fleet.until("a handles", || by(&fleet, "a")() >= 20).await;
    let b = fleet.member("b").start().await;
    fleet
        .until("one of them continues", || fleet.acked() >= 60)
        .await;
    // One of the two owns the only partition.
    let (owner, other) = if a.owns() > 0 { (a, b) } else { (b, a) };
    let began = Instant::now();
    let before = by(&fleet, other.name())();
    owner.close().await;
    fleet
        .until("the other handles", || by(&fleet, other.name())() > before)
        .await;
    let took = began.elapsed();
    assert!(took <= timing.handover, "the handover took {took:?}");
    background_load.stop().await;
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    other.close().await;
}

async fn c05_close_settles_what_is_in_flight(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 2).await;
    // In rounds: a broker may store the records of one call in any order of their keys. A drain settles
    // all records that are stored before those in flight, which must not be a key's whole queue.
    let mut test_producer = fleet.test_producer().await;
    for _ in 0..10 {
        test_producer.send(10, 1).await;
    }
    test_producer.close().await;
    let slow = timing.handover * 2;
    let drain = slow * 3;
    let member = fleet
        .member("a")
        .handler_delay(slow)
        .with(|group| group.drain_timeout(drain));
    let member = member.start().await;
    fleet
        .until("handlers are at work", || by(&fleet, "a")() >= 5)
        .await;
    let handle = member.handle().clone();
    let took = member.close().await;
    let count = |outcome| {
        fleet
            .history
            .count(|e| matches!(e, Event::Ended { outcome: o, .. } if *o == outcome))
    };
    let stats = handle.stats();
    assert_eq!(
        stats.lost, 0,
        "no partition is lost before it is drained: {stats:?}"
    );
    assert_eq!(
        count(Outcome::Dropped),
        0,
        "no handler is cut off: the drain may take {drain:?}, and close took {took:?}"
    );
    assert_eq!(
        count(Outcome::Acked),
        by(&fleet, "a")(),
        "all that began was settled"
    );
    let member = fleet.member("b").start().await;
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    member.close().await;
}

async fn c05_a_joining_member_repeats_nothing(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 4).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(16, Duration::from_millis(2));
    let a = fleet
        .member("a")
        .handler_delay(Duration::from_millis(40))
        .start()
        .await;
    fleet.until("a handles", || by(&fleet, "a")() >= 20).await;
    let began = Instant::now();
    let b = fleet
        .member("b")
        .handler_delay(Duration::from_millis(40))
        .start()
        .await;
    fleet.until("b handles", || by(&fleet, "b")() >= 1).await;
    assert!(
        began.elapsed() < timing.session,
        "b waited for {:?}",
        began.elapsed()
    );
    fleet
        .until("the partitions are shared", || {
            a.owns() == 2 && b.owns() == 2
        })
        .await;
    background_load.stop().await;
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    assert_eq!(
        a.handle().stats().lost,
        0,
        "a lost nothing: {:?}",
        a.handle().stats()
    );
    assert_eq!(
        a.handle().stats().released,
        2,
        "a handed over two partitions: {:?}",
        a.handle().stats()
    );
    a.close().await;
    b.close().await;
}

async fn c05_group_that_is_empty_for_a_while_goes_on(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    fleet.send(4, 10).await;
    let a = fleet.member("a").start().await;
    fleet.settled().await;
    a.close().await;
    let mut more =
        crate::fleet::TestProducer::open(&fleet.client, &fleet.stream, &fleet.history, 500).await;
    for turn in 0..20 {
        more.send_one(Some(&format!("other-{}", turn % 4))).await;
    }
    more.close().await;
    let b = fleet.member("b").start().await;
    let summary = fleet.check().await;
    assert_eq!(
        (summary.handled, summary.duplicates),
        (60, 0),
        "{summary:?}"
    );
    b.close().await;
}
