//! Both sides count the same leases and members, and take no more than their share.

use aws_sdk_dynamodb::types::AttributeValue;
use millstream_kinesis::Aggregation;

use crate::ground::Ground;
use crate::member::{Member, Side};

/// Ours makes the table, and a member of Java's and another of ours join.
pub(crate) async fn evenly(ground: Ground) {
    let a = Member::start(&ground, Side::Rust, "ours-a").await;
    let flow = ground.flow(Aggregation::Kpl).await;
    let alone = ground.balanced(&["ours-a"]).await;
    let b = Member::start(&ground, Side::Java, "java-b").await;
    let two = ground.balanced(&["ours-a", "java-b"]).await;
    let c = Member::start(&ground, Side::Rust, "ours-c").await;
    let three = ground.balanced(&["ours-a", "java-b", "ours-c"]).await;
    for member in [&a, &b, &c] {
        ground.at_work(&member.name).await;
    }
    let summary = ground.judge(&flow.stop().await).await;
    ground.print(&format!(
        "shared by one after {alone:.1?}, two {two:.1?}, three {three:.1?}: {summary}"
    ));
    for member in [a, b, c] {
        member.stop().await;
    }
}

/// Its second phase writes of itself, of its state and its metrics, between the leases. It is to change to
/// algorithms of its own when all members tell of their metrics, which ours do not: it goes on as before.
pub(crate) async fn second_phase(ground: Ground) {
    let ours = Member::start(&ground, Side::Rust, "ours").await;
    let flow = ground.flow(Aggregation::Off).await;
    ground.balanced(&["ours"]).await;
    let phase = [("version", "COMPATIBLE_WITH_2X")];
    let java = Member::java(&ground, "java", &phase).await;
    let took = ground.balanced(&["ours", "java"]).await;
    ground.at_work("ours").await;
    ground.at_work("java").await;
    assert_eq!(state(&ground).await, "CLIENT_VERSION_UPGRADE_FROM_2X");
    java.stop().await;
    ground.balanced(&["ours"]).await;
    let summary = ground.judge(&flow.stop().await).await;
    ground.print(&format!(
        "in its second phase, shared after {took:.1?}: {summary}"
    ));
    ours.stop().await;
}

/// What version 3 of the library takes its own fleet for.
async fn state(ground: &Ground) -> String {
    let key = AttributeValue::S("Migration3.0".to_owned());
    let get = ground.site.dynamodb().get_item().table_name(&ground.name);
    let got = get.key("leaseKey", key).send().await;
    let item = got.expect("the state is read").item;
    let item = item.expect("there is a state");
    item["cv"].as_s().expect("it is text").clone()
}
