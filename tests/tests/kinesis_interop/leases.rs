//! The lease table, as it is stored.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType,
};
use aws_sdk_kinesis::types::Shard;

const KEY: &str = "leaseKey";

/// A row of the lease table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) owner: Option<String>,
    pub(crate) checkpoint: String,
    pub(crate) sub: u64,
}

/// Returns the leases by shard. Version 3 of the library also stores other items in the table.
pub(crate) async fn read(dynamodb: &Client, table: &str) -> BTreeMap<String, Lease> {
    let scan = dynamodb.scan().table_name(table).consistent_read(true);
    let scanned = match scan.send().await {
        Ok(scanned) => scanned,
        // The table does not exist yet.
        Err(error)
            if error
                .as_service_error()
                .is_some_and(|e| e.is_resource_not_found_exception()) =>
        {
            return BTreeMap::new();
        }
        Err(error) => panic!("the leases cannot be read: {error:?}"),
    };
    let leases = scanned.items().iter().filter_map(|row| {
        let text = |name: &str| row.get(name)?.as_s().ok().cloned();
        let lease = Lease {
            owner: text("leaseOwner"),
            checkpoint: text("checkpoint")?,
            sub: row
                .get("checkpointSubSequenceNumber")?
                .as_n()
                .ok()?
                .parse()
                .ok()?,
        };
        Some((text(KEY)?, lease))
    });
    leases.collect()
}

/// Creates the table with an unowned lease for each shard, at its oldest record. The library waits for up to
/// 30 s when it has to create the first leases.
pub(crate) async fn create(dynamodb: &Client, table: &str, shards: &[Shard]) {
    let key = AttributeDefinition::builder()
        .attribute_name(KEY)
        .attribute_type(ScalarAttributeType::S);
    let hash = KeySchemaElement::builder()
        .attribute_name(KEY)
        .key_type(KeyType::Hash);
    let created = dynamodb
        .create_table()
        .table_name(table)
        .attribute_definitions(key.build().expect("it is whole"))
        .key_schema(hash.build().expect("it is whole"))
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await;
    created.expect("the table is created");
    for shard in shards {
        let range = shard.hash_key_range().expect("a shard has a range");
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let zero = || AttributeValue::N("0".to_owned());
        let row = HashMap::from([
            (KEY, text(shard.shard_id())),
            ("leaseCounter", zero()),
            ("ownerSwitchesSinceCheckpoint", zero()),
            ("checkpoint", text("TRIM_HORIZON")),
            ("checkpointSubSequenceNumber", zero()),
            ("startingHashKey", text(range.starting_hash_key())),
            ("endingHashKey", text(range.ending_hash_key())),
        ]);
        let row = row
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        let put = dynamodb
            .put_item()
            .table_name(table)
            .set_item(Some(row.collect()));
        put.send().await.expect("the lease is stored");
    }
}

/// Deletes a lease, as an operator may by mistake.
pub(crate) async fn remove(dynamodb: &Client, table: &str, shard: &str) {
    let key = AttributeValue::S(shard.to_owned());
    let removed = dynamodb
        .delete_item()
        .table_name(table)
        .key(KEY, key)
        .send()
        .await;
    removed.expect("the lease is removed");
}
