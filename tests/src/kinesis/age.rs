//! Ages the timestamps in a group's lease table, as if the group had stopped for longer than the
//! retention period.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;

/// The attributes with the times at which nothing was left to read, and at which the start was
/// resolved, in milliseconds.
const TIMES: [&str; 2] = ["millstreamTip", "millstreamResolved"];

/// More than a day, in milliseconds: emulators and Kinesis keep records for a day.
const BACK: u64 = 30 * 3_600 * 1_000;

/// # Panics
/// If there is no such table.
pub(super) async fn age(dynamodb: &Client, table: &str) {
    let scanned = dynamodb.scan().table_name(table).consistent_read(true);
    let scanned = scanned.send().await.expect("the group has its table");
    for row in scanned.items.unwrap_or_default() {
        for time in TIMES.into_iter().filter(|time| row.contains_key(*time)) {
            let aged = dynamodb
                .update_item()
                .table_name(table)
                .key("leaseKey", row["leaseKey"].clone())
                .update_expression("SET #time = #time - :back")
                .expression_attribute_names("#time", time)
                .expression_attribute_values(":back", AttributeValue::N(BACK.to_string()));
            aged.send().await.expect("the row is there");
        }
    }
}
