//! Enhanced fan-out subscriptions break early, in the middle of an event.

use std::time::Duration;

use tokio::time::sleep;

use crate::fixture::Fixture;

/// Like Kinesis, the emulator considers a subscription active for a while after its connection is cut, and
/// rejects the next one.
const PAUSE: Duration = Duration::from_millis(1_500);

pub(crate) async fn break_off(fixture: Fixture) {
    const TIMES: u64 = 5;
    let load = fixture.load().await;
    let (a, b) = fixture.pair().await;
    let handovers = fixture.handovers();
    let stream = fixture.fleet.stream.as_str();
    let hits = || fixture.faults().hits(stream);
    for _ in 0..TIMES {
        let before = hits();
        fixture.faults().cut_subscriptions(stream);
        fixture.fleet.until("one is cut", || hits() > before).await;
        fixture.handles(50).await;
        sleep(PAUSE).await;
    }
    let summary = fixture.check(load).await;
    assert_eq!((summary.handovers, summary.duplicates), (handovers, 0));
    assert!(hits() >= TIMES);
    a.close().await;
    b.close().await;
}
