//! The store against a real DynamoDB, and members that use it.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use millstream_core::ErrorKind;
use tokio::time::timeout;

use super::*;
use crate::credit::Credit;
use crate::lease::row::names;
use crate::lease::row::new::string;
use crate::lease::testing::contract::{self, run};
use crate::lease::testing::rig::Rig;
use crate::lease::{LeaseEvent, Worker};

/// The endpoint of a DynamoDB, such as DynamoDB Local.
const ENDPOINT: &str = "MILLSTREAM_TEST_DYNAMODB";

const PATIENCE: Duration = Duration::from_secs(30);

fn client() -> Client {
    let endpoint = std::env::var(ENDPOINT).unwrap();
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .retry_config(aws_config::retry::RetryConfig::disabled())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(endpoint);
    Client::from_conf(config.build())
}

fn store(create: bool) -> DynamoDb {
    let table = format!("leases-{:016x}", fastrand::u64(..));
    DynamoDb::new(client(), Credit::default(), table, create, PATIENCE)
}

#[tokio::test]
#[ignore = "needs a DynamoDB at $MILLSTREAM_TEST_DYNAMODB"]
async fn it_does_what_the_table_in_memory_does() {
    let store = store(true);
    store.open().await.unwrap();
    store.open().await.unwrap();
    run(&store).await;
}

#[tokio::test]
#[ignore = "needs a DynamoDB at $MILLSTREAM_TEST_DYNAMODB"]
async fn a_missing_table_is_not_found() {
    let store = store(false);
    let error = store.open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(error.to_string().contains("leaseKey"), "{error}");
    assert_eq!(
        store.scan(false).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
#[ignore = "needs a DynamoDB at $MILLSTREAM_TEST_DYNAMODB"]
async fn the_version_of_the_fleet_is_read_from_either_table() {
    let store = store(true);
    store.open().await.unwrap();
    assert_eq!(store.client_version().await.unwrap(), None);
    let version = "CLIENT_VERSION_UPGRADE_FROM_2X";
    let beside = format!("{}-CoordinatorState", store.table);
    for (table, key) in [(&*beside, "key"), (&*store.table, KEY)] {
        if table == beside {
            let definition = AttributeDefinition::builder()
                .attribute_name(key)
                .attribute_type(ScalarAttributeType::S)
                .build();
            let hash = KeySchemaElement::builder()
                .attribute_name(key)
                .key_type(KeyType::Hash)
                .build();
            let create = client().create_table().table_name(table);
            let create = create
                .attribute_definitions(definition.unwrap())
                .key_schema(hash.unwrap());
            let create = create.billing_mode(BillingMode::PayPerRequest);
            create.send().await.unwrap();
        }
        let put = client().put_item().table_name(table);
        let put = put.item(key, string(MIGRATION)).item("cv", string(version));
        put.send().await.unwrap();
        assert_eq!(
            store.client_version().await.unwrap().as_deref(),
            Some(version)
        );
    }
}

#[tokio::test]
#[ignore = "needs a DynamoDB at $MILLSTREAM_TEST_DYNAMODB"]
async fn two_members_share_a_table_and_hand_over() {
    let rig = Rig::new(4);
    let table = format!("leases-{:016x}", fastrand::u64(..));
    let join = async |id: &str| {
        let mut options = rig.options(id);
        options.store = Arc::new(DynamoDb::new(
            client(),
            Credit::default(),
            table.clone(),
            true,
            PATIENCE,
        ));
        options.failover = Duration::from_secs(3);
        options.drain = Duration::from_secs(2);
        Worker::join(options).await.unwrap()
    };
    let event = async |worker: &Worker| {
        timeout(Duration::from_secs(20), worker.next())
            .await
            .unwrap()
    };
    let a = join("a").await;
    for _ in 0..4 {
        let LeaseEvent::Taken { lease, epoch, .. } = event(&a).await else {
            panic!("not taken");
        };
        a.checkpoint(&lease, epoch, 5.into()).await.unwrap();
    }
    let b = join("b").await;
    for _ in 0..2 {
        let LeaseEvent::HandoffRequested { lease, epoch, .. } = event(&a).await else {
            panic!("not asked");
        };
        a.release(&lease, epoch).await.unwrap();
        let LeaseEvent::Taken { lease, epoch, .. } = event(&b).await else {
            panic!("not taken");
        };
        b.checkpoint(&lease, epoch, 6.into()).await.unwrap();
    }
    b.leave().await.unwrap();
    for _ in 0..2 {
        let event = event(&a).await;
        assert!(matches!(event, LeaseEvent::Taken { .. }), "{event:?}");
    }
    a.leave().await.unwrap();
    let rows = DynamoDb::new(client(), Credit::default(), table, false, PATIENCE)
        .scan(true)
        .await
        .unwrap();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| !row.contains_key(names::OWNER)));
}

#[tokio::test]
async fn the_table_in_memory_keeps_the_contract() {
    run(&contract::memory()).await;
}
