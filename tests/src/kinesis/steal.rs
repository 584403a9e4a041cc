//! Steals a lease from its owner, by the KCL's rules for lease stealing.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use tokio::time::{Instant, sleep};

/// The timeout: a group may still be assigning its leases.
const TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Steals the lease of a shard for a worker that releases it at once.
///
/// # Panics
/// If it has no owner for 20 s.
pub(super) async fn steal(dynamodb: &Client, table: &str, stream: &str, shard: &str) {
    let begun = Instant::now();
    while begun.elapsed() < TIMEOUT {
        if let Some(key) = held(dynamodb, table, stream, shard).await
            && take(dynamodb, table, &key).await
        {
            give_up(dynamodb, table, &key).await;
            return;
        }
        sleep(POLL_INTERVAL).await;
    }
    panic!("nobody in group {table} holds the lease of {shard} of {stream}");
}

/// Returns the key of the shard's lease, if it has an owner.
async fn held(dynamodb: &Client, table: &str, stream: &str, shard: &str) -> Option<AttributeValue> {
    let scan = dynamodb.scan().table_name(table).consistent_read(true);
    // Before the group is created, there is no table.
    let rows = scan.send().await.ok()?.items.unwrap_or_default();
    rows.into_iter().find_map(|mut row| {
        let key = row.remove("leaseKey")?;
        let is_of_shard = match &*key.as_s().ok()?.split(':').collect::<Vec<_>>() {
            [id] => *id == shard,
            // A group of several streams: account, stream, its creation, shard.
            [_, of, _, id] => *of == stream && *id == shard,
            _ => false,
        };
        (is_of_shard && row.contains_key("leaseOwner")).then_some(key)
    })
}

/// Takes the lease. Returns whether it had an owner until then.
async fn take(dynamodb: &Client, table: &str, key: &AttributeValue) -> bool {
    let taken = dynamodb
        .update_item()
        .table_name(table)
        .key("leaseKey", key.clone())
        .update_expression("SET leaseOwner = :thief ADD leaseCounter :one")
        .condition_expression("attribute_exists(leaseOwner)")
        .expression_attribute_values(":thief", AttributeValue::S("a-thief".into()))
        .expression_attribute_values(":one", AttributeValue::N("1".into()));
    taken.send().await.is_ok()
}

async fn give_up(dynamodb: &Client, table: &str, key: &AttributeValue) {
    let given_up = dynamodb
        .update_item()
        .table_name(table)
        .key("leaseKey", key.clone())
        .update_expression("REMOVE leaseOwner ADD leaseCounter :one")
        .condition_expression("leaseOwner = :thief")
        .expression_attribute_values(":thief", AttributeValue::S("a-thief".into()))
        .expression_attribute_values(":one", AttributeValue::N("1".into()));
    given_up
        .send()
        .await
        .expect("no lease is taken in its first moment");
}
