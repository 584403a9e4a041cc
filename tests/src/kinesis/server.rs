use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use testcontainers::core::ContainerPort;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::containers;

/// The interval at which a server's readiness is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The timeout of a server's start. Only a failing start waits that long.
const TIMEOUT: Duration = Duration::from_secs(90);

/// An emulator of Kinesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emulator {
    /// <https://github.com/mandrean/ferrokinesis>. It enforces the limits of AWS, and can be persistent.
    /// It lists no children at the end of a shard.
    Ferrokinesis,
    /// <https://github.com/etspaceman/kinesis-mock>. It lists children as Kinesis does, and accepts
    /// records of 10 MiB. It has few limits.
    KinesisMock,
}

/// A running server, in a container that is removed when this is dropped within a tokio runtime. Its
/// port stays the same across restarts.
#[derive(Debug)]
pub struct Server {
    container: ContainerAsync<GenericImage>,
    name: &'static str,
    port: u16,
}

impl Server {
    /// Starts an emulator of Kinesis.
    pub async fn kinesis(emulator: Emulator) -> Self {
        match emulator {
            Emulator::Ferrokinesis => Self::start("ferrokinesis", || ferrokinesis(&[])).await,
            Emulator::KinesisMock => Self::start("kinesis-mock", kinesis_mock).await,
        }
    }

    /// Starts an emulator of Kinesis that enforces the write limits of shards.
    pub async fn limited_kinesis() -> Self {
        Self::start("ferrokinesis", || ferrokinesis(&["--enforce-limits"])).await
    }

    /// Starts DynamoDB Local.
    pub async fn dynamodb() -> Self {
        Self::start("dynamodb", || dynamodb(&["-inMemory"])).await
    }

    /// Starts an emulator of Kinesis that keeps its data when it is killed.
    pub async fn persistent_kinesis() -> Self {
        let keep = ["--state-dir", "/tmp/kinesis"];
        // In the official image, only root may create a folder.
        let root = || {
            let (request, port) = ferrokinesis(&keep);
            (request.with_user("0"), port)
        };
        Self::start("ferrokinesis", root).await
    }

    /// Starts DynamoDB Local so that it keeps its data when it is killed.
    pub async fn persistent_dynamodb() -> Self {
        Self::start("dynamodb", || dynamodb(&["-dbPath", "/tmp"])).await
    }

    async fn start(
        name: &'static str,
        request: impl Fn() -> (ContainerRequest<GenericImage>, u16),
    ) -> Self {
        containers::ready(name).await;
        let (container, port) = containers::start(name, request).await;
        let server = Self {
            container,
            name,
            port,
        };
        server.serves().await;
        server
    }

    /// Returns its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address for clients.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the address for clients that use TLS and do not verify the certificate.
    pub async fn tls_endpoint(&self) -> String {
        let port = self.container.get_host_port_ipv4(TLS).await;
        let port = port.unwrap_or_else(|error| panic!("{} has no TLS: {error}", self.name));
        format!("https://127.0.0.1:{port}")
    }

    /// Kills it and starts it again with its data.
    pub async fn restart(&self) {
        containers::docker(&["kill", "--signal", "KILL", self.container.id()]).await;
        let started = self.container.start().await;
        started.unwrap_or_else(|error| panic!("{} does not start: {error}", self.name));
        self.serves().await;
    }

    async fn serves(&self) {
        let begun = Instant::now();
        while let Err(error) = responds(self.port).await {
            let ended = !self.container.is_running().await.unwrap_or(false);
            if ended || begun.elapsed() > TIMEOUT {
                panic!("{} does not serve: {error}", self.name);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// A failed test prints its servers' logs, because the containers are removed with it.
impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = containers::log_tail(self.container.id());
            eprintln!("{} logged\n{log}", self.name);
        }
    }
}

/// An open port does not mean that the server is ready: the engine's own proxy accepts connections before it.
async fn responds(port: u16) -> io::Result<()> {
    let exchange = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        stream.read_u8().await
    };
    timeout(Duration::from_secs(1), exchange).await??;
    Ok(())
}

/// Returns the container request of an image, and the container's port.
fn image(name: &str, tag: &str, port: u16) -> (ContainerRequest<GenericImage>, u16) {
    let mapped = containers::free_port();
    let request = ContainerRequest::from(GenericImage::new(name, tag));
    let request = request.with_mapped_port(mapped, ContainerPort::Tcp(port));
    (request, mapped)
}

/// How long creating, changing and deleting a stream takes, in milliseconds: long enough to be observed.
const CHANGE: &str = "100";

/// The shard limit: more than all cases have together.
const SHARDS: &str = "100000";

fn ferrokinesis(more: &[&str]) -> (ContainerRequest<GenericImage>, u16) {
    let mut arguments = vec!["--shard-limit", SHARDS];
    for change in [
        "--create-stream-ms",
        "--delete-stream-ms",
        "--update-stream-ms",
    ] {
        arguments.extend([change, CHANGE]);
    }
    arguments.extend(more);
    let (request, port) = image("ghcr.io/mandrean/ferrokinesis", "0.7.0", 4567);
    (request.with_cmd(arguments), port)
}

/// The TLS port of [`Emulator::KinesisMock`].
const TLS: u16 = 4567;

fn kinesis_mock() -> (ContainerRequest<GenericImage>, u16) {
    let (request, port) = image("ghcr.io/etspaceman/kinesis-mock", "0.6.2", 4568);
    let mut request = request.with_mapped_port(containers::free_port(), ContainerPort::Tcp(TLS));
    let changes = [
        "CREATE_STREAM",
        "DELETE_STREAM",
        "SPLIT_SHARD",
        "MERGE_SHARDS",
        "REGISTER_STREAM_CONSUMER",
        "DEREGISTER_STREAM_CONSUMER",
    ];
    for change in changes {
        request = request.with_env_var(format!("{change}_DURATION"), format!("{CHANGE}ms"));
    }
    let request = request
        .with_env_var("SHARD_LIMIT", SHARDS)
        .with_env_var("LOG_LEVEL", "ERROR");
    (request, port)
}

fn dynamodb(store: &[&str]) -> (ContainerRequest<GenericImage>, u16) {
    let mut arguments = vec![
        "-jar",
        "DynamoDBLocal.jar",
        "-sharedDb",
        "-disableTelemetry",
    ];
    arguments.extend(store);
    let (request, port) = image("amazon/dynamodb-local", "2.6.1", 8000);
    let request = request
        .with_cmd(arguments)
        // For a small machine: the server has little to do.
        .with_env_var(
            "JAVA_TOOL_OPTIONS",
            "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx256m",
        );
    (request, port)
}
