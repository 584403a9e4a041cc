//! Subscriptions of enhanced fan-out end before their time, in the middle of what they bring.

use std::time::Duration;

use tokio::time::sleep;

use crate::ground::Ground;

/// Kinesis, too, takes a subscription for active for a while after it is cut, and refuses the next one.
const PAUSE: Duration = Duration::from_millis(1_500);

pub(crate) async fn break_off(ground: Ground) {
    const TIMES: u64 = 5;
    let load = ground.load().await;
    let (a, b) = ground.pair().await;
    let handovers = ground.handovers();
    let stream = ground.fleet.stream.as_str();
    let struck = || ground.faults().struck(stream);
    for _ in 0..TIMES {
        let before = struck();
        ground.faults().cut_subscriptions(stream);
        ground.fleet.until("one is cut", || struck() > before).await;
        ground.handles(50).await;
        sleep(PAUSE).await;
    }
    let summary = ground.judge(load).await;
    assert_eq!((summary.handovers, summary.duplicates), (handovers, 0));
    assert!(struck() >= TIMES);
    a.close().await;
    b.close().await;
}
