use std::path::Path;

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use millstream_core::{Partition, driver};
use tokio::sync::OnceCell;

use super::proxy::{Endpoint, Faults, Proxy, RequestStats};
use super::{Emulator, Server, age, retention, steal};
use crate::TcpProxy;

/// An emulator of Kinesis, DynamoDB Local, and a proxy in front of both. All connections of a client with
/// this [`endpoint`](Self::endpoint) go through the proxy.
#[derive(Debug)]
pub struct Testbed {
    emulator: Emulator,
    kinesis: Server,
    dynamodb: Server,
    proxy: Proxy,
    /// Bypasses the proxy: fault injection must not be subject to faults.
    to_kinesis: aws_sdk_kinesis::Client,
    to_dynamodb: aws_sdk_dynamodb::Client,
    /// The limits of every stream that is created like those of the cases.
    pub(super) limits: OnceCell<driver::StreamLimits>,
}

impl Testbed {
    /// The region of all services.
    pub const REGION: &str = "us-east-1";

    /// The access key id and the secret: any are accepted.
    pub const CREDENTIALS: [&str; 2] = ["test", "test"];

    /// Starts all three.
    pub async fn start(emulator: Emulator) -> Self {
        let (kinesis, dynamodb) = tokio::join!(Server::kinesis(emulator), Server::dynamodb());
        Self::of(emulator, kinesis, dynamodb)
    }

    /// Starts all three with persistent data, so that they can be restarted.
    pub async fn persistent() -> Self {
        let (kinesis, dynamodb) =
            tokio::join!(Server::persistent_kinesis(), Server::persistent_dynamodb());
        Self::of(Emulator::Ferrokinesis, kinesis, dynamodb)
    }

    fn of(emulator: Emulator, kinesis: Server, dynamodb: Server) -> Self {
        let proxy = Proxy::open(kinesis.port(), dynamodb.port());
        let (to_kinesis, to_dynamodb) = (kinesis_at(&kinesis), dynamodb_at(&dynamodb));
        Self {
            emulator,
            kinesis,
            dynamodb,
            proxy,
            to_kinesis,
            to_dynamodb,
            limits: OnceCell::new(),
        }
    }

    /// Returns the emulator of Kinesis.
    pub fn emulator(&self) -> Emulator {
        self.emulator
    }

    /// Returns the address for clients of both services.
    pub fn endpoint(&self) -> String {
        self.proxy.endpoint()
    }

    /// Returns the ports of single clients, and the faults of connections.
    pub fn network(&self, endpoint: Endpoint) -> &TcpProxy {
        self.proxy.network(endpoint)
    }

    /// Returns the certificate of [`Endpoint::AwsLike`], for clients that verify it.
    pub fn certificate(&self) -> &Path {
        self.proxy.certificate()
    }

    /// Returns the address of Kinesis without the proxy, which supports only the protocol of our clients.
    pub fn kinesis_endpoint(&self) -> String {
        self.kinesis.endpoint()
    }

    /// Returns the address of DynamoDB without the proxy.
    pub fn dynamodb_endpoint(&self) -> String {
        self.dynamodb.endpoint()
    }

    /// Returns the address of Kinesis without the proxy, with TLS and a self-signed certificate.
    ///
    /// # Panics
    /// If the emulator has no TLS port.
    pub async fn tls_endpoint(&self) -> String {
        self.kinesis.tls_endpoint().await
    }

    /// Returns the faults to inject into requests.
    pub fn faults(&self) -> &Faults {
        self.proxy.faults()
    }

    /// Returns the counters of requests and records.
    pub fn stats(&self) -> &RequestStats {
        self.proxy.stats()
    }

    /// Enforces the read limits of AWS on polling of this stream from now on.
    pub fn limit_reads(&self, stream: &str) {
        self.proxy.limit_reads(stream);
    }

    /// Returns a client of Kinesis that bypasses the proxy.
    pub fn kinesis(&self) -> &aws_sdk_kinesis::Client {
        &self.to_kinesis
    }

    /// Returns a client of DynamoDB that bypasses the proxy.
    pub fn dynamodb(&self) -> &aws_sdk_dynamodb::Client {
        &self.to_dynamodb
    }

    /// Steals the lease of a partition from its owner.
    ///
    /// # Panics
    /// If it has no owner for 20 s.
    pub async fn steal(&self, table: &str, partition: &Partition) {
        let dynamodb = dynamodb_at(&self.dynamodb);
        steal::steal(&dynamodb, table, partition.stream(), partition.id()).await;
    }

    /// Hides all records that the stream has now.
    ///
    /// # Panics
    /// If the emulator does not list its records.
    pub async fn trim(&self, stream: &str) {
        let kinesis = kinesis_at(&self.kinesis);
        for (shard, last) in retention::newest(&kinesis, stream).await {
            self.proxy.trim(stream, &shard, &last);
        }
    }

    /// Ages the timestamps of a group's leases by more than a day.
    ///
    /// # Panics
    /// If there is no such group.
    pub async fn age(&self, table: &str) {
        age::age(&dynamodb_at(&self.dynamodb), table).await;
    }

    /// Kills both servers, and starts them again with their data.
    pub async fn restart(&self) {
        tokio::join!(self.kinesis.restart(), self.dynamodb.restart());
    }
}

/// Returns a client of Kinesis that bypasses the proxy.
///
/// Each case that shares a testbed has its own runtime, and a connection ends with the runtime that opened
/// it. So actions for such a case need a separate client.
fn kinesis_at(kinesis: &Server) -> aws_sdk_kinesis::Client {
    let [id, secret] = Testbed::CREDENTIALS;
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(Testbed::REGION))
        .credentials_provider(Credentials::new(id, secret, None, None, "tests"))
        .endpoint_url(address(kinesis));
    aws_sdk_kinesis::Client::from_conf(config.build())
}

/// Like [`kinesis_at`], for DynamoDB.
fn dynamodb_at(dynamodb: &Server) -> aws_sdk_dynamodb::Client {
    let [id, secret] = Testbed::CREDENTIALS;
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(Testbed::REGION))
        .credentials_provider(Credentials::new(id, secret, None, None, "tests"))
        .endpoint_url(address(dynamodb));
    aws_sdk_dynamodb::Client::from_conf(config.build())
}

fn address(server: &Server) -> String {
    format!("http://127.0.0.1:{}", server.port())
}
