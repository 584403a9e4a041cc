//! Ages a group's notes in its lease table, as if the group had stopped for longer than the
//! retention.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;

/// When nothing was left to be read, in milliseconds.
const TIP: &str = "millstreamTip";

/// In milliseconds: more than a day, which is how long emulators and Kinesis keep records.
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
