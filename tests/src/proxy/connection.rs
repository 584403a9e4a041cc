//! One proxied connection.

use std::sync::Arc;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::ProxyTarget;
use super::carry::{Direction, carry};
use super::network::Network;

/// The buffer of unread bytes of a target: as much as a socket would hold.
const BUFFER: usize = 64 << 10;

/// Forwards everything until either side ends, or a fault ends it.
pub(super) async fn forward(
    client: TcpStream,
    network: Network,
    target: Arc<dyn ProxyTarget>,
    port: u16,
) {
    // Only the faults may delay the data.
    drop(client.set_nodelay(true));
    let number = network.connect();
    if network.rate() > 0 {
        let socket = SockRef::from(&client);
        drop(socket.set_recv_buffer_size(BUFFER));
        drop(socket.set_send_buffer_size(BUFFER));
    }
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let (from_client, to_client) = client.into_split();
    let (from_target, to_target) = tokio::io::split(ours);
    let requests = carry(
        from_client,
        to_target,
        &network,
        number,
        Direction::Requests,
    );
    let responses = carry(
        from_target,
        to_client,
        &network,
        number,
        Direction::Responses,
    );
    // A client that is gone may still have requests in transit. When the target ends, so do the
    // responses.
    let requests = async {
        drop(tokio::join!(requests, target.serve(theirs, port)));
        std::future::pending::<()>().await;
    };
    // The first end closes both sides: both sockets are closed with this function.
    tokio::select! {
        () = requests => {}
        // If a side is gone, the other side detects it.
        ended = responses => drop(ended),
        () = network.cut() => network.hit(),
    }
}
