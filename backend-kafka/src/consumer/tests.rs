//! Members against librdkafka's own mock of a cluster.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::driver::{FilteredCounter, JoinOptions, Membership as _};
use millstream_core::{ErrorKind, Start};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::command::Command;
use super::{Group, StartedMember};
use crate::config::Config;
use crate::connection::Connection;

const TIMEOUT: Duration = Duration::from_secs(20);

fn group(brokers: String) -> Group {
    let config = Config {
        brokers: vec![brokers],
        ..Config::default()
    };
    let connection = Connection::open(config, None).unwrap();
    Group::new(&Arc::new(connection), "g")
}

fn join() -> JoinOptions {
    JoinOptions {
        streams: vec!["t".into()],
        start: Start::Earliest,
        member: None,
        batch_records: 100,
        batch_bytes: 1 << 20,
        buffer_bytes: 16 << 20,
        drain: Duration::from_secs(1),
        required: Vec::new(),
        filtered: FilteredCounter::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_polling_thread_ends_the_member() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 1, 1).unwrap();
    let started = group(mock.bootstrap_servers()).start(join(), Vec::new());
    let StartedMember { member, id, .. } = started.unwrap();
    timeout(TIMEOUT, id).await.unwrap().unwrap().unwrap();
    // The client holds it, too.
    let waker = Arc::downgrade(&member.commands.waker);
    member.commands.to.send(Command::Panic).unwrap();
    member.commands.waker.wake();
    let ended = timeout(TIMEOUT, async {
        loop {
            if let Err(error) = member.next().await {
                return error;
            }
        }
    });
    let error = ended.await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("panicked"), "{error}");
    drop(member);
    let ended = async {
        while waker.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let ended = timeout(TIMEOUT, ended).await;
    assert!(ended.is_ok(), "the client has ended and left the group");
}

/// Brokers store the offsets of a transaction without a member id without checking who owns the partitions.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_a_member_without_an_id_is_not_begun() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 1, 1).unwrap();
    let started = group(mock.bootstrap_servers()).start(join(), Vec::new());
    let StartedMember { member, id, .. } = started.unwrap();
    timeout(TIMEOUT, id).await.unwrap().unwrap().unwrap();
    let prepare = async || {
        let (reply, prepared) = oneshot::channel();
        let marks = Vec::new();
        let command = Command::PrepareTransaction { marks, reply };
        member.commands.to.send(command).unwrap();
        member.commands.waker.wake();
        timeout(TIMEOUT, prepared).await.unwrap().unwrap()
    };
    prepare().await.unwrap();
    // The member is removed from its group, and cannot join again.
    mock.request_errors(
        RDKafkaApiKey::Heartbeat,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID; 10],
    );
    mock.request_errors(
        RDKafkaApiKey::JoinGroup,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE; 1_000],
    );
    let refused = async {
        loop {
            match prepare().await {
                Ok(_) => tokio::task::yield_now().await,
                Err(refused) => return refused,
            }
        }
    };
    let refused = timeout(TIMEOUT, refused).await.unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert!(refused.message().contains("in no group"), "{refused}");
}
