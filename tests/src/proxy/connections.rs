//! The interface for injecting faults into connections.

use std::time::Duration;

use tokio::time::Instant;

use super::network::Network;

/// Connections of one client or of several, from [`TcpProxy::of`](super::TcpProxy::of) and
/// [`TcpProxy::all`](super::TcpProxy::all). Their faults also affect connections that are opened later.
#[derive(Debug, Clone)]
pub struct Connections(Vec<Network>);

impl Connections {
    pub(super) fn new(networks: impl IntoIterator<Item = Network>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// Closes them, and each new one at once, until [`heal`](Self::heal).
    pub fn cut(&self) {
        self.change(|network| network.change(|faults| faults.is_cut = true));
    }

    /// Forwards nothing in either direction, while connections stay open and are accepted: for
    /// `duration`, or until [`heal`](Self::heal) or [`thaw`](Self::thaw). Bytes that are sent meanwhile are
    /// forwarded afterwards, even if the sender has closed the connection.
    pub fn freeze(&self, duration: Duration) {
        let until = Instant::now() + duration;
        self.change(|network| network.change(|faults| faults.frozen_until = Some(until)));
    }

    /// Ends a freeze.
    pub fn thaw(&self) {
        self.change(|network| network.change(|faults| faults.frozen_until = None));
    }

    /// Forwards nothing more over the connections that are open now, which stay open: their packets are dropped, as by a
    /// router that has forgotten them. New connections are not affected.
    pub fn strand(&self) {
        self.change(Network::strand);
    }

    /// Limits the throughput of all connections together in each direction, until [`heal`](Self::heal). Connections
    /// that are opened meanwhile have the small buffers of a slow network.
    pub fn limit_rate(&self, bytes_per_second: u32) {
        self.change(|network| network.change(|faults| faults.rate = bytes_per_second));
    }

    /// Forwards requests, and closes a connection in place of the next bytes of a response, until
    /// [`heal`](Self::heal).
    pub fn swallow_responses(&self) {
        self.change(|network| network.change(|faults| faults.swallows_responses = true));
    }

    /// Delays everything by this duration, in each direction, until [`heal`](Self::heal). Order and
    /// throughput are preserved.
    pub fn delay(&self, by: Duration) {
        self.change(|network| network.change(|faults| faults.delay = by));
    }

    /// Ends all these faults.
    pub fn heal(&self) {
        self.change(|network| network.change(|faults| *faults = Default::default()));
    }

    /// Returns how often faults took effect so far: the connections that were closed or stranded, and the
    /// pieces of data that were delayed. A test that passes without its fault proves nothing.
    pub fn hits(&self) -> u64 {
        self.0.iter().map(Network::hits).sum()
    }

    fn change(&self, change: impl FnMut(&Network)) {
        self.0.iter().for_each(change);
    }
}
