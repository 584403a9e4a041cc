//! Streams that begin to distribute records themselves while members run.

use std::time::Duration;

use tokio::time::sleep;

use crate::lease::testing::rig::{App, Rig, until};

const SECOND: Duration = Duration::from_secs(1);

/// How often the leader looks at its streams, and how often the others do.
const LEADER: Duration = Duration::from_secs(60);
const OTHERS: Duration = Duration::from_secs(600);

fn noticed(app: &App) -> usize {
    let log = app.log();
    log.iter().filter(|what| *what == "unordered s").count()
}

#[tokio::test(start_paused = true)]
async fn a_switch_is_noticed_once_by_every_member() {
    let rig = Rig::new(2);
    let (one, other) = (rig.app("a").await, rig.app("b").await);
    until(60 * SECOND, || one.count() == 1 && other.count() == 1).await;
    sleep(2 * OTHERS).await;
    assert_eq!(
        (noticed(&one), noticed(&other)),
        (0, 0),
        "nothing has changed"
    );
    rig.source.distribute("s", true);
    until(LEADER + SECOND, || noticed(&one) + noticed(&other) > 0).await;
    until(OTHERS + LEADER, || noticed(&one) + noticed(&other) > 1).await;
    sleep(2 * OTHERS).await;
    assert_eq!((noticed(&one), noticed(&other)), (1, 1));
    // Their leases are where they were.
    assert_eq!((one.count(), other.count()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn each_switch_is_noticed_and_the_one_before_the_join_is_not() {
    let rig = Rig::new(1);
    rig.source.distribute("s", true);
    let app = rig.app("a").await;
    sleep(2 * OTHERS).await;
    assert_eq!(noticed(&app), 0, "the join knows it");
    for times in 1..3 {
        rig.source.distribute("s", false);
        sleep(2 * OTHERS).await;
        rig.source.distribute("s", true);
        until(LEADER + SECOND, || noticed(&app) == times).await;
    }
}
