//! The conformance suite of millstream's backends, and the checker of their histories.
//!
//! A backend's author implements [`Harness`], and runs every [`Case`] with a [`Suite`];
//! `tests/NEW_BACKEND.md` shows how. A case that needs a guarantee which a backend does not make is
//! listed as ignored, with the reason; it never passes silently.
//!
//! [`history`] records what happens in a case, and [`checker`] finds violations of the promises.

pub mod cases;
pub mod checker;
#[cfg(any(feature = "kafka", feature = "kinesis"))]
mod containers;
#[cfg(any(feature = "kafka", feature = "kinesis"))]
mod events;
mod faulty_backend;
pub mod fleet;
mod harness;
pub mod history;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "kinesis")]
pub mod kinesis;
mod layer;
mod proxy;
mod runner;
#[cfg(feature = "simulation")]
pub mod simulation;

pub use cases::Case;
#[cfg(any(feature = "kafka", feature = "kinesis"))]
pub use events::Events;
pub use faulty_backend::{Faults, FaultyBackend};
pub use harness::{
    Disturbed, Fault, Harness, Hooks, Need, OwnFault, Timing, eventually, unique_stream,
    within_timeout,
};
pub use layer::{
    Layer, Layered, LayeredMembership, LayeredProducer, MembershipLayer, ProducerLayer,
};
pub use proxy::{Connections, ProxyTarget, TcpProxy};
pub use runner::{BrokerScope, LazyBroker, Setup, Suite};
