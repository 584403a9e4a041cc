//! C9: each group has its own progress; one group cannot slow or move another.

use std::sync::Arc;

use millstream_core::Start;

use super::cases;
use crate::Harness;
use crate::checker::check;
use crate::fleet::{Fleet, handler_fn};
use crate::history::Event;

cases! {
    c09_two_groups_read_everything_each,
    c09_stuck_group_does_not_hold_another,
    c09_reset_of_one_group_does_not_move_another,
}

/// Returns two groups that read one stream.
async fn two(harness: Arc<dyn Harness>) -> (Fleet, Fleet) {
    let one = Fleet::new(harness.clone(), 3).await;
    let other = Fleet::on(harness, one.stream.clone(), one.history.clone(), true).await;
    (one, other)
}

async fn c09_two_groups_read_everything_each(harness: Arc<dyn Harness>) {
    let (one, other) = two(harness).await;
    let a = one.member("a").start().await;
    let b = other.member("b").start().await;
    one.send(9, 20).await;
    one.settled().await;
    let summary = other.check().await;
    assert_eq!(
        (summary.handled, summary.duplicates),
        (360, 0),
        "{summary:?}"
    );
    a.close().await;
    b.close().await;
}

async fn c09_stuck_group_does_not_hold_another(harness: Arc<dyn Harness>) {
    let (stuck, other) = two(harness).await;
    stuck.send(9, 20).await;
    let hangs = handler_fn(|_| async {
        std::future::pending::<()>().await;
        Ok(())
    });
    let a = stuck.member("a").handler(hangs).start().await;
    stuck
        .until("its handlers hang", || a.handle().stats().in_flight == 9)
        .await;
    let b = other.member("b").start().await;
    other.settled().await;
    other.caught_up().await;
    let moved = stuck.checkpoints().await;
    let held = moved.iter().all(|c| c.position.is_none());
    assert!(held, "the stuck group has settled nothing: {moved:?}");
    a.crash().await;
    let a = stuck.member("a-again").start().await;
    stuck.settled().await;
    check(&stuck.history.entries()).assert_clean();
    a.close().await;
    b.close().await;
}

async fn c09_reset_of_one_group_does_not_move_another(harness: Arc<dyn Harness>) {
    let (one, other) = two(harness).await;
    one.send(9, 20).await;
    let a = one.member("a").start().await;
    let b = other.member("b").start().await;
    for group in [&one, &other] {
        group.settled().await;
        group.caught_up().await;
    }
    a.close().await;
    one.history.record(Event::Reset {
        group: one.group.as_str().into(),
        stream: one.stream.as_str().into(),
        skips: false,
    });
    let group = one.client.group(one.group.as_str());
    group
        .reset(&one.stream, Start::Earliest)
        .await
        .expect("the group is moved");
    other.caught_up().await;
    let a = one.member("a-again").start().await;
    one.until("the group reads all again", || one.acked() == 360)
        .await;
    assert_eq!(other.acked(), 180, "the other group reads nothing again");
    check(&one.history.entries()).assert_clean();
    a.close().await;
    b.close().await;
}
