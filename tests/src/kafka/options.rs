use std::collections::BTreeMap;

use super::Broker;

/// The options of a broker: its properties, its listeners, and additional files.
///
/// By default it is a broker for tests: default delays are short, internal topics are
/// small, and no topic is created by accident. In any case it also has the plaintext
/// listener [`Listener::CLIENT`], and an internal one for its tools.
#[derive(Debug, Clone)]
pub struct Options {
    pub(super) env: BTreeMap<String, String>,
    pub(super) listeners: BTreeMap<String, Listener>,
    pub(super) files: Vec<(String, Vec<u8>)>,
}

/// A listener of a broker. Each has its own port on 127.0.0.1.
#[derive(Debug, Clone)]
pub struct Listener {
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) advertised: Option<u16>,
    pub(super) advertised_host: String,
}

impl Listener {
    /// The name of the plaintext listener that every broker has.
    pub const CLIENT: &str = "CLIENT";

    /// Creates a plaintext listener. The name must be in capital letters; a listener named
    /// [`CLIENT`](Self::CLIENT) replaces the one that every broker has.
    ///
    /// The name must not contain `SSL`: the start script of the official image interprets that as its own
    /// way to configure TLS, and refuses to start.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            protocol: "PLAINTEXT".to_owned(),
            advertised: None,
            advertised_host: "127.0.0.1".to_owned(),
        }
    }

    /// Sets the security protocol: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub fn protocol(mut self, protocol: &str) -> Self {
        self.protocol = protocol.to_owned();
        self
    }

    /// Sets the port of 127.0.0.1 that is advertised to clients, instead of the broker's own. It is the
    /// port of a proxy, which forwards to the broker's [`port`](Broker::port).
    pub fn advertised(mut self, port: u16) -> Self {
        self.advertised = Some(port);
        self
    }

    /// Sets the host that is advertised to clients, instead of 127.0.0.1.
    pub fn advertised_host(mut self, host: &str) -> Self {
        self.advertised_host = host.to_owned();
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// Creates the options of a broker for tests.
    pub fn new() -> Self {
        let options = Self {
            env: BTreeMap::new(),
            listeners: BTreeMap::new(),
            files: Vec::new(),
        };
        options
            .listener(Listener::new(Listener::CLIENT))
            // Memory and JIT compilation for one core: many brokers share a small machine.
            .env("KAFKA_HEAP_OPTS", "-Xmx512m")
            .env(
                "KAFKA_JVM_PERFORMANCE_OPTS",
                "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
            )
            .property("log.dirs", "/var/lib/kafka/data")
            .property("auto.create.topics.enable", "false")
            // Cases send records with timestamps of 1970, which retention would delete at its next check.
            .property("log.retention.ms", "-1")
            .property("offsets.topic.num.partitions", "4")
            .property("offsets.topic.replication.factor", "1")
            .property("transaction.state.log.num.partitions", "4")
            .property("transaction.state.log.replication.factor", "1")
            .property("transaction.state.log.min.isr", "1")
            // A killed broker is known to be gone, and may return, when its session has ended.
            .property("broker.session.timeout.ms", "2000")
            .property("broker.heartbeat.interval.ms", "500")
            .property("group.initial.rebalance.delay.ms", "0")
            .property("group.min.session.timeout.ms", "1000")
            // With the protocol of KIP-848 the broker sets these.
            .property("group.consumer.session.timeout.ms", "2000")
            .property("group.consumer.min.session.timeout.ms", "1000")
            .property("group.consumer.heartbeat.interval.ms", "200")
            .property("group.consumer.min.heartbeat.interval.ms", "100")
    }

    /// Sets a property of the broker, by its name in Kafka's documentation.
    pub fn property(self, name: &str, value: &str) -> Self {
        let name = name.to_uppercase().replace('_', "__");
        let name = name.replace('-', "___").replace('.', "_");
        self.env(&format!("KAFKA_{name}"), value)
    }

    /// Sets an environment variable of the container, for example `KAFKA_HEAP_OPTS`. The image's scripts read it, and
    /// so do the tools that run in the container.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Adds a listener, or replaces the one with its name.
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listeners.insert(listener.name.clone(), listener);
        self
    }

    /// Adds a file to the container before the broker starts, readable by all users.
    ///
    /// `/etc/millstream/` is a good place: the official image has its own folders as volumes of
    /// another user.
    pub fn file(mut self, path: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.to_owned(), contents.into()));
        self
    }

    /// Starts a broker as a cluster of one, and returns when it serves.
    pub async fn start(self) -> Broker {
        Broker::alone(self).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_is_the_variable_that_the_image_turns_back_into_it() {
        let options = Options::new()
            .property("a.b", "1")
            .property("a_b", "2")
            .property("listener.name.x.scram-sha-256.sasl.jaas.config", "3");
        assert_eq!(options.env["KAFKA_A_B"], "1");
        assert_eq!(options.env["KAFKA_A__B"], "2");
        let scram = "KAFKA_LISTENER_NAME_X_SCRAM___SHA___256_SASL_JAAS_CONFIG";
        assert_eq!(options.env[scram], "3");
    }
}
