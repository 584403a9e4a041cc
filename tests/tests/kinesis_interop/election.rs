//! Both sides elect the same leader, who heals the table: a lease is lost, as by somebody's mistake.

use std::time::{Duration, Instant};

use millstream_kinesis::Aggregation;

use crate::ground::Ground;
use crate::leases;
use crate::member::{Member, Side};

/// The library does not look for holes before it has run for a minute. Ours looks every second here.
const A_MINUTE: Duration = Duration::from_secs(60);

pub(crate) async fn hole(ground: Ground, elected: Side) {
    ground.create_leases().await;
    // Of two owners, the leader is the one whose name is less. Time tells who it was that healed: Java
    // cannot before its minute is over, and ours would not wait for it.
    let begun = Instant::now();
    let leader = Member::start(&ground, elected, "a").await;
    let other = Member::start(&ground, elected.other(), "z").await;
    let flow = ground.flow(Aggregation::Off).await;
    ground.balanced(&["a", "z"]).await;
    let shard = ground.held_by("z").await.remove(0);
    let removed = begun.elapsed();
    leases::remove(ground.site.dynamodb(), &ground.name, &shard).await;
    ground
        .until("the lease is there again, and somebody's", || async {
            ground.leases().await.get(&shard)?.owner.clone()
        })
        .await;
    let healed = begun.elapsed();
    let summary = ground.judge(&flow.stop().await).await;
    ground.print(&format!(
        "{elected:?} was elected, a hole of {removed:.1?} was healed at {healed:.1?}: {summary}"
    ));
    match elected {
        Side::Java => assert!(healed >= A_MINUTE, "ours healed it"),
        Side::Rust => assert!(healed < A_MINUTE, "Java healed it"),
    }
    leader.stop().await;
    other.stop().await;
}
