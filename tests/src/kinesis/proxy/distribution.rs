//! Streams that distribute records over their shards themselves, which no emulator knows.

use serde_json::Value;

/// Changes a batch of records so that each is stored in any shard.
pub(super) fn scatter(body: &Value) -> Value {
    let mut body = body.clone();
    for record in body["Records"].as_array_mut().into_iter().flatten() {
        record["ExplicitHashKey"] = fastrand::u128(..).to_string().into();
    }
    body
}

/// Changes the description of a stream.
pub(super) fn describe(description: &mut Value) {
    let summary = &mut description["StreamDescriptionSummary"];
    if summary.is_object() {
        summary["RecordDistributionStrategy"] = "AUTO".into();
    }
}
