//! What a member does when one of its streams begins to distribute records itself.

use std::time::Duration;

use millstream_core::Start;

use super::*;
use crate::config::Config;
use crate::lease::testing::rig::{Rig, join};

/// A member that reads nothing: its events are not asked for.
async fn member(rig: &Rig, required: &[Guarantee]) -> Membership {
    let config = Config {
        region: Some("eu-west-1".into()),
        ..Config::default()
    };
    let source = StreamSource {
        id: "s".into(),
        mode: RetrievalMode::Polling,
        distribution: Distribution::default(),
    };
    Membership::from(Parts {
        id: "m".into(),
        group: "g".into(),
        worker: join(rig.options("m")).await.unwrap(),
        connection: Arc::new(Connection::open(config).await.unwrap()),
        sources: HashMap::from([("s".into(), source)]),
        options: JoinOptions {
            streams: vec!["s".into()],
            start: Start::Earliest,
            member: None,
            batch_records: 100,
            batch_bytes: 1 << 20,
            buffer_bytes: 16 << 20,
            drain: Duration::from_secs(5),
            required: required.to_vec(),
            filtered: FilteredCounter::default(),
        },
    })
}

fn switch(rig: &Rig, member: &Membership) -> Result<()> {
    rig.source.distribute("s", true);
    member.on_lease_event(LeaseEvent::Unordered(rig.source.described("s")))
}

#[tokio::test]
async fn readers_leave_nothing_out_from_then_on() {
    let rig = Rig::new(1);
    let member = member(&rig, &[Guarantee::Durable]).await;
    // As a running reader has it.
    let distribution = member.sources["s"].distribution.clone();
    assert!(!distribution.is_automatic());
    switch(&rig, &member).unwrap();
    assert!(distribution.is_automatic());
}

#[tokio::test]
async fn a_member_that_requires_key_order_ends() {
    let rig = Rig::new(1);
    let member = member(&rig, &[Guarantee::KeyOrder]).await;
    let error = switch(&rig, &member).unwrap_err();
    assert_eq!(
        (error.kind(), error.stream(), error.group()),
        (ErrorKind::Unsupported, Some("s"), Some("g")),
        "{error}"
    );
}
