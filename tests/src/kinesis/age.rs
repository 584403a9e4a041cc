//! Ages the timestamps in a group's lease table, as if the group had stopped for longer than the
//! retention period.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;

/// The attribute with the time at which nothing was left to read, in milliseconds.
const TIP: &str = "millstreamTip";

/// More than a day, in milliseconds: emulators and Kinesis keep records for a day.
const BACK: u64 = 30 * 3_600 * 1_000;

/// # Panics
/// If there is no such table.
pub(super) async fn age(dynamodb: &Client, table: &str) {
    let scanned = dynamodb.scan().table_name(table).consistent_read(true);
    let scanned = scanned.send().await.expect("the group has its table");
    for row in scanned.items.unwrap_or_default() {
        if row.contains_key(TIP) {
            let aged = dynamodb
                .update_item()
                .table_name(table)
                .key("leaseKey", row["leaseKey"].clone())
                .update_expression("SET #tip = #tip - :back")
                .expression_attribute_names("#tip", TIP)
                .expression_attribute_values(":back", AttributeValue::N(BACK.to_string()));
            aged.send().await.expect("the row is there");
        }
    }
}
