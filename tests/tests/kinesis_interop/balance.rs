//! Both sides count the same leases and members, and take no more than their share.

use aws_sdk_dynamodb::types::AttributeValue;
use millstream_kinesis::Aggregation;

use crate::fixture::Fixture;
use crate::member::{Member, Side};

/// A millstream member creates the lease table; then a Java member and another millstream member join.
pub(crate) async fn evenly(fixture: Fixture) {
    let a = Member::start(&fixture, Side::Rust, "ours-a").await;
    let background_load = fixture.send_in_background(Aggregation::Kpl).await;
    let alone = fixture.balanced(&["ours-a"]).await;
    let b = Member::start(&fixture, Side::Java, "java-b").await;
    let two = fixture.balanced(&["ours-a", "java-b"]).await;
    let c = Member::start(&fixture, Side::Rust, "ours-c").await;
    let three = fixture.balanced(&["ours-a", "java-b", "ours-c"]).await;
    for member in [&a, &b, &c] {
        fixture.at_work(&member.name).await;
    }
    let summary = fixture.check(&background_load.stop().await).await;
    fixture.print(&format!(
        "shared by one after {alone:.1?}, two {two:.1?}, three {three:.1?}: {summary}"
    ));
    for member in [a, b, c] {
        member.stop().await;
    }
}

/// In its second phase the library stores its migration state and worker metrics in the lease table. It changes
/// to its new algorithms only when all members report metrics. Millstream members do not, so it continues as before.
pub(crate) async fn second_phase(fixture: Fixture) {
    let ours = Member::start(&fixture, Side::Rust, "ours").await;
    let background_load = fixture.send_in_background(Aggregation::Off).await;
    fixture.balanced(&["ours"]).await;
    let phase = [("version", "COMPATIBLE_WITH_2X")];
    let java = Member::java(&fixture, "java", &phase).await;
    let took = fixture.balanced(&["ours", "java"]).await;
    fixture.at_work("ours").await;
    fixture.at_work("java").await;
    assert_eq!(state(&fixture).await, "CLIENT_VERSION_UPGRADE_FROM_2X");
    java.stop().await;
    fixture.balanced(&["ours"]).await;
    let summary = fixture.check(&background_load.stop().await).await;
    fixture.print(&format!(
        "in its second phase, shared after {took:.1?}: {summary}"
    ));
    ours.stop().await;
}

/// Returns the state of the fleet's migration, according to version 3 of the library.
async fn state(fixture: &Fixture) -> String {
    let key = AttributeValue::S("Migration3.0".to_owned());
    let get = fixture
        .testbed
        .dynamodb()
        .get_item()
        .table_name(&fixture.name);
    let got = get.key("leaseKey", key).send().await;
    let item = got.expect("the state is read").item;
    let item = item.expect("there is a state");
    item["cv"].as_s().expect("it is text").clone()
}
