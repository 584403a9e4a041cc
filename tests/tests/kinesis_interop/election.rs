//! Both sides elect the same leader, which repairs the lease table after a lease was deleted by mistake.

use std::time::{Duration, Instant};

use millstream_kinesis::Aggregation;

use crate::fixture::Fixture;
use crate::leases;
use crate::member::{Member, Side};

/// The library audits the leases only after it has run for a minute. Millstream audits every second here.
const A_MINUTE: Duration = Duration::from_secs(60);

pub(crate) async fn hole(fixture: Fixture, elected: Side) {
    fixture.create_leases().await;
    // Of two owners, the leader is the one whose name sorts first. The time shows which side repaired
    // the table: Java cannot within its first minute, and millstream does not wait that long.
    let begun = Instant::now();
    let leader = Member::start(&fixture, elected, "a").await;
    let other = Member::start(&fixture, elected.other(), "z").await;
    let background_load = fixture.send_in_background(Aggregation::Off).await;
    fixture.balanced(&["a", "z"]).await;
    let shard = fixture.held_by("z").await.remove(0);
    let removed = begun.elapsed();
    leases::remove(fixture.testbed.dynamodb(), &fixture.name, &shard).await;
    fixture
        .until("the lease is there again, and somebody's", || async {
            fixture.leases().await.get(&shard)?.owner.clone()
        })
        .await;
    let healed = begun.elapsed();
    let summary = fixture.check(&background_load.stop().await).await;
    fixture.print(&format!(
        "{elected:?} was elected, a hole of {removed:.1?} was healed at {healed:.1?}: {summary}"
    ));
    match elected {
        Side::Java => assert!(healed >= A_MINUTE, "ours healed it"),
        Side::Rust => assert!(healed < A_MINUTE, "Java healed it"),
    }
    leader.stop().await;
    other.stop().await;
}
