//! Forwards the bytes of one direction of a connection, under the faults of its network.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::network::Network;

/// The maximum number of bytes that are read at once.
const PIECE: usize = 16 << 10;

/// The maximum number of pieces in transit. With fewer, a delay would limit the throughput.
const IN_FLIGHT: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Requests,
    Responses,
}

/// Some bytes, and the time at which they are due.
type Piece = (Instant, Bytes);

/// Forwards all bytes, and then the end of the stream. An error ends the connection.
pub(super) async fn carry(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    network: &Network,
    connection: u64,
    direction: Direction,
) -> io::Result<()> {
    let (pieces, due) = mpsc::channel(IN_FLIGHT);
    let ((), delivered) = tokio::join!(
        take(from, pieces, network, direction),
        deliver(due, to, network, connection, direction)
    );
    delivered
}

/// Reads until the stream ends. A side that is gone is an end like any other: the bytes it has sent before
/// arrive.
async fn take(
    mut from: impl AsyncRead + Unpin,
    pieces: mpsc::Sender<Piece>,
    network: &Network,
    direction: Direction,
) {
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        // The other half has ended when writing has failed.
        let read = tokio::select! {
            read = from.read_buf(&mut piece) => read,
            () = pieces.closed() => return,
        };
        if !matches!(read, Ok(1..)) {
            return;
        }
        network.passed(direction, piece.len()).await;
        let due = Instant::now() + network.delay();
        if pieces.send((due, piece.freeze())).await.is_err() {
            return;
        }
    }
}

async fn deliver(
    mut pieces: mpsc::Receiver<Piece>,
    mut to: impl AsyncWrite + Unpin,
    network: &Network,
    connection: u64,
    direction: Direction,
) -> io::Result<()> {
    while let Some((due, piece)) = pieces.recv().await {
        if due > Instant::now() {
            network.hit();
            sleep_until(due).await;
        }
        network.thawed().await;
        network.forwarded(connection).await;
        if direction == Direction::Responses && network.swallows_responses() {
            network.hit();
            return Err(io::Error::other("the response is swallowed"));
        }
        to.write_all(&piece).await?;
    }
    // The end must not arrive before the bytes that were sent before it.
    network.thawed().await;
    to.shutdown().await
}
