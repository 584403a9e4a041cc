//! Apache Kafka in containers: brokers that a test starts, injects faults into, and inspects with Kafka's own
//! tools.
//!
//! The information about a broker comes from the broker's own responses, or from the tools in
//! its container, and never from the tested code. Only [`KafkaHarness`] uses the tested code.
//!
//! Everything here panics when the container engine fails, because no test can continue without it.

mod broker;
mod cluster;
mod frame;
mod harness;
mod options;
mod probe;
mod proxy;
mod record_limit;
mod retention;
mod steal;
mod testbed;
mod wire_request;

pub use broker::{Broker, Output};
pub use cluster::Cluster;
pub use harness::KafkaHarness;
pub use options::{Listener, Options};
pub use proxy::{Faults, Proxy, RequestKind};
pub use testbed::Testbed;
