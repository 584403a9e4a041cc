use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use testcontainers::core::{ContainerPort, ExecCommand};
use testcontainers::{
    ContainerAsync, ContainerRequest, GenericImage, ImageExt, TestcontainersError,
};

use super::options::{Listener, Options};
use super::probe;
use crate::containers;

/// The interval at which a broker's readiness is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The timeout of all requests to a broker. It suits a machine that starts several brokers at once
/// on few cores; only failures wait that long.
pub(super) const TIMEOUT: Duration = Duration::from_secs(90);

/// The listener for other brokers and for the tools; plaintext, regardless of the other listeners.
const INTERNAL: &str = "BROKER";
const INTERNAL_PORT: u16 = 9093;
pub(super) const CONTROLLER_PORT: u16 = 9094;
/// The listeners of the options have the following ports.
const FIRST_PORT: u16 = 9095;

/// A running broker, in a container that is removed when this is dropped within a tokio runtime, also when a test
/// panics. Drop its clients first; most wait for a broker when they close.
///
/// Its ports stay the same across restarts.
#[derive(Debug)]
pub struct Broker {
    container: ContainerAsync<GenericImage>,
    node: usize,
    /// The ports of each listener, by its name: the real one, and the one that it advertises to clients.
    ports: BTreeMap<String, Ports>,
    nodes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    mapped: u16,
    advertised: u16,
}

/// The output of a command within the container.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code.
    pub code: i64,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Returns the standard output of a command that must have succeeded.
    pub fn ok(self) -> String {
        assert!(self.code == 0, "the command failed: {self:?}");
        self.stdout
    }
}

/// The information that a broker needs about its cluster.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    pub(super) node: usize,
    /// The host name by which other brokers find it.
    pub(super) host: String,
    /// The network that the brokers share, if there are others.
    pub(super) network: Option<String>,
    /// The value of `controller.quorum.voters`.
    pub(super) voters: String,
    pub(super) nodes: usize,
}

impl Broker {
    pub(super) async fn alone(options: Options) -> Self {
        let membership = Membership {
            node: 1,
            host: "localhost".to_owned(),
            network: None,
            voters: format!("1@localhost:{CONTROLLER_PORT}"),
            nodes: 1,
        };
        let broker = Self::create(options, membership).await;
        broker.serves().await;
        broker
    }

    /// Starts the container, and returns before the broker serves.
    pub(super) async fn create(options: Options, membership: Membership) -> Self {
        containers::ready("kafka").await;
        let name = format!("broker {}", membership.node);
        let (container, ports) = containers::start(&name, || request(&options, &membership)).await;
        Self {
            container,
            node: membership.node,
            ports,
            nodes: membership.nodes,
        }
    }

    /// Returns the value for a client's `bootstrap.servers`, on the plaintext listener.
    pub fn bootstrap(&self) -> String {
        self.bootstrap_of(Listener::CLIENT)
    }

    /// Returns the value for a client's `bootstrap.servers`, on a listener of the options: the
    /// advertised port, so that a client uses the proxy, if there is one, from its first
    /// connection.
    pub fn bootstrap_of(&self, listener: &str) -> String {
        format!("127.0.0.1:{}", self.ports(listener).advertised)
    }

    /// Returns the real port of a listener on 127.0.0.1: the port to which a proxy forwards.
    pub fn port(&self, listener: &str) -> u16 {
        self.ports(listener).mapped
    }

    fn ports(&self, listener: &str) -> Ports {
        match self.ports.get(listener) {
            Some(ports) => *ports,
            None => panic!("broker {} has no listener {listener}", self.node),
        }
    }

    /// Kills it, like a power failure. Acknowledged records stay on its disk.
    pub async fn kill(&self) {
        containers::docker(&["kill", "--signal", "KILL", self.container.id()]).await;
    }

    /// Stops it cleanly: it hands over its partitions, and closes its files.
    pub async fn stop(&self) {
        let stopped = self.container.stop_with_timeout(Some(60)).await;
        stopped.unwrap_or_else(|error| panic!("broker {} does not stop: {error}", self.node));
    }

    /// Starts it again, with its data and ports, and returns when it serves: when it
    /// responds, is known to its cluster, and every partition that it knows of has a leader.
    pub async fn start(&self) {
        self.start_container().await;
        self.serves().await;
    }

    pub(super) async fn start_container(&self) {
        let started = self.container.start().await;
        started.unwrap_or_else(|error| panic!("broker {} does not start: {error}", self.node));
    }

    /// Freezes it: connections stay open, and nothing gets a response.
    pub async fn pause(&self) {
        // The engine fails if a thread in the container does not stop at once, which can happen to a thread that is
        // just being created.
        const ATTEMPTS: usize = 5;
        for attempt in 1.. {
            match self.container.pause().await {
                Ok(()) => return,
                Err(error) if attempt < ATTEMPTS && freezing_failed(&error) => {}
                Err(error) => panic!("broker {} does not pause: {error}", self.node),
            }
        }
    }

    /// Resumes the frozen broker.
    pub async fn unpause(&self) {
        let unpaused = self.container.unpause().await;
        unpaused.unwrap_or_else(|error| panic!("broker {} does not continue: {error}", self.node));
    }

    /// Runs one of Kafka's tools, for example `kafka-topics.sh`, against this broker, as its super user.
    /// This adds `--bootstrap-server`.
    pub async fn tool(&self, name: &str, args: &[&str]) -> Output {
        let path = format!("/opt/kafka/bin/{name}");
        let server = format!("localhost:{INTERNAL_PORT}");
        let mut command = vec![&*path, "--bootstrap-server", &server];
        command.extend(args);
        self.exec(&command).await
    }

    /// Runs a command within the container. Standard input is empty.
    pub async fn exec(&self, command: &[&str]) -> Output {
        let run = async {
            let command = ExecCommand::new(command.iter().copied());
            let mut result = self.container.exec(command).await?;
            // The exit code is available when the output has ended.
            let stdout = result.stdout_to_vec().await?;
            let stderr = result.stderr_to_vec().await?;
            let code = result.exit_code().await?;
            Ok::<_, TestcontainersError>((code, stdout, stderr))
        };
        match run.await {
            Ok((code, stdout, stderr)) => Output {
                code: code.expect("a command whose output has ended has a code"),
                stdout: String::from_utf8_lossy(&stdout).into_owned(),
                stderr: String::from_utf8_lossy(&stderr).into_owned(),
            },
            Err(error) => panic!("{command:?} does not run in broker {}: {error}", self.node),
        }
    }

    /// Returns the broker's log since the container was created, preceded by the errors of its start
    /// script.
    pub async fn log(&self) -> String {
        let mut log = self.container.stderr_to_vec().await.unwrap_or_default();
        log.extend(self.container.stdout_to_vec().await.unwrap_or_default());
        String::from_utf8_lossy(&log).into_owned()
    }

    pub(super) fn id(&self) -> &str {
        self.container.id()
    }

    /// Waits until it responds, and knows itself in its cluster.
    pub(super) async fn serves(&self) {
        self.wait_for_state("serve", |state| {
            state.nodes.contains(&self.node) && state.leaderless == 0
        })
        .await;
    }

    /// Waits until it knows all brokers of its cluster, and every replica is in sync.
    pub(super) async fn settled(&self) {
        self.wait_for_state("settle", |state| {
            state.nodes.len() == self.nodes && state.leaderless == 0 && state.lagging == 0
        })
        .await;
    }

    /// Waits until it knows that another broker is gone, and the partitions of that broker have a new
    /// leader.
    pub(super) async fn misses(&self, node: usize) {
        self.wait_for_state("miss another", |state| {
            !state.nodes.contains(&node) && state.leaderless == 0
        })
        .await;
    }

    async fn wait_for_state(&self, what: &str, is_met: impl Fn(&probe::ClusterState) -> bool) {
        let begun = Instant::now();
        loop {
            let state = probe::cluster_state(self.port(INTERNAL)).await;
            if state.as_ref().is_ok_and(&is_met) {
                return;
            }
            let ended = !self.container.is_running().await.unwrap_or(false);
            if ended || begun.elapsed() > TIMEOUT {
                panic!("broker {} does not {what}: {state:?}", self.node);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// A failed test prints its broker's log, because the container is removed with it.
impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = containers::log_tail(self.id());
            eprintln!("broker {} logged\n{log}", self.node);
        }
    }
}

fn freezing_failed(error: &TestcontainersError) -> bool {
    format!("{error:?}").contains("unable to freeze")
}

/// Returns the container request, and its ports.
fn request(
    options: &Options,
    membership: &Membership,
) -> (ContainerRequest<GenericImage>, BTreeMap<String, Ports>) {
    let internal = Listener::new(INTERNAL);
    let mut ports = BTreeMap::new();
    let mut bound = vec![format!("CONTROLLER://0.0.0.0:{CONTROLLER_PORT}")];
    let mut advertised = vec![format!("{INTERNAL}://{}:{INTERNAL_PORT}", membership.host)];
    let mut protocols = vec!["CONTROLLER:PLAINTEXT".to_owned()];
    let mut request = ContainerRequest::from(GenericImage::new("apache/kafka", "4.1.1"));

    for (listener, inner) in [&internal]
        .into_iter()
        .chain(options.listeners.values())
        .zip([INTERNAL_PORT].into_iter().chain(FIRST_PORT..))
    {
        let Listener { name, protocol, .. } = listener;
        let mapped = containers::free_port();
        let outer = listener.advertised.unwrap_or(mapped);
        bound.push(format!("{name}://0.0.0.0:{inner}"));
        protocols.push(format!("{name}:{protocol}"));
        if name != INTERNAL {
            let host = &listener.advertised_host;
            advertised.push(format!("{name}://{host}:{outer}"));
        }
        request = request.with_mapped_port(mapped, ContainerPort::Tcp(inner));
        ports.insert(
            name.clone(),
            Ports {
                mapped,
                advertised: outer,
            },
        );
    }

    let roles = [
        ("KAFKA_NODE_ID", membership.node.to_string()),
        ("KAFKA_PROCESS_ROLES", "broker,controller".to_owned()),
        ("KAFKA_CONTROLLER_QUORUM_VOTERS", membership.voters.clone()),
        ("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER".to_owned()),
        ("KAFKA_INTER_BROKER_LISTENER_NAME", INTERNAL.to_owned()),
        ("KAFKA_LISTENERS", bound.join(",")),
        ("KAFKA_ADVERTISED_LISTENERS", advertised.join(",")),
        ("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", protocols.join(",")),
    ];
    for (name, value) in roles {
        request = request.with_env_var(name, value);
    }
    for (name, value) in &options.env {
        request = request.with_env_var(name, value);
    }
    for (path, contents) in &options.files {
        request = request.with_copy_to(path.as_str(), contents.clone());
    }
    if let Some(network) = &membership.network {
        request = request
            .with_network(network)
            .with_container_name(&membership.host);
    }
    (request, ports)
}
