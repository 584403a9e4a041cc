//! The table of leases, as it is stored.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType,
};
use aws_sdk_kinesis::types::Shard;

const KEY: &str = "leaseKey";

/// A row of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) owner: Option<String>,
    pub(crate) checkpoint: String,
    pub(crate) sub: u64,
}

/// What the table has, by shard. Version 3 of the library keeps other things in it, too.
pub(crate) async fn read(dynamodb: &Client, table: &str) -> BTreeMap<String, Lease> {
    let scan = dynamodb.scan().table_name(table).consistent_read(true);
    let scanned = match scan.send().await {
        Ok(scanned) => scanned,
        // Nobody has made it yet.
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

/// Makes the table with a lease of each shard that nobody has, which begins at its oldest record. The
/// library waits for up to 30 s where it has to make the first ones.
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

/// Removes a lease, as somebody with a console may by mistake.
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
