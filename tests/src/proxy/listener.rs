//! The port of one client, and its connections.

use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

use super::network::Network;
use super::{ProxyTarget, connection};

/// Dropping it closes the port and its connections.
#[derive(Debug)]
pub(super) struct Listener {
    port: u16,
    network: Network,
    serving: JoinHandle<()>,
}

impl Listener {
    /// # Panics
    /// If the system has no free port.
    pub(super) fn open(runtime: &Handle, target: Arc<dyn ProxyTarget>) -> Self {
        let (listener, port) = bind(runtime).expect("the system has a free port");
        let network = Network::default();
        let serving = serve(listener, network.clone(), target, port);
        Self {
            port,
            network,
            serving: runtime.spawn(serving),
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn bind(runtime: &Handle) -> io::Result<(TcpListener, u16)> {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    listener.set_nonblocking(true)?;
    // Sockets belong to the runtime on which they are created.
    let _entered = runtime.enter();
    Ok((TcpListener::from_std(listener)?, port))
}

async fn serve(listener: TcpListener, network: Network, target: Arc<dyn ProxyTarget>, port: u16) {
    // Ends every connection when this task is aborted.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(_) if network.is_cut() => network.hit(),
                Ok((client, _)) => {
                    let (network, target) = (network.clone(), target.clone());
                    let connection = connection::forward(client, network, target, port);
                    connections.spawn(connection);
                }
                Err(error) => panic!("the proxy cannot accept connections: {error}"),
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
        }
    }
}
