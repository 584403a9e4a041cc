//! Requests a broker's view of its cluster, in a few bytes of Kafka's own protocol.
//!
//! An open port proves nothing: the engine's proxy accepts connections before the broker does.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A broker's view of its cluster.
#[derive(Debug, Default)]
pub(super) struct ClusterState {
    /// The nodes that serve.
    pub(super) nodes: Vec<usize>,
    /// The number of partitions without a leader.
    pub(super) leaderless: usize,
    /// The number of partitions with a replica that is not in sync.
    pub(super) lagging: usize,
}

/// Sends a request to the plaintext listener behind this port, and waits for the response for at most a second.
pub(super) async fn cluster_state(port: u16) -> io::Result<ClusterState> {
    let response = timeout(Duration::from_secs(1), exchange(port)).await??;
    read(response).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Sends a metadata request for all topics: <https://kafka.apache.org/protocol#The_Messages_Metadata>.
async fn exchange(port: u16) -> io::Result<Bytes> {
    const METADATA: i16 = 3;
    const VERSION: i16 = 1;
    const LENGTH: i32 = 2 + 2 + 4 + 2 + 4;

    let mut request = BytesMut::new();
    request.put_i32(LENGTH);
    request.put_i16(METADATA);
    request.put_i16(VERSION);
    request.put_i32(0); // correlation
    request.put_i16(-1); // no client id
    request.put_i32(-1); // all topics

    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(&request).await?;
    let length = stream.read_i32().await?;
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut response = vec![0; length];
    stream.read_exact(&mut response).await?;
    Ok(response.into())
}

fn read(mut from: Bytes) -> Result<ClusterState, TryGetError> {
    let mut state = ClusterState::default();
    from.try_get_i32()?; // correlation
    for _ in 0..from.try_get_i32()? {
        state.nodes.push(from.try_get_i32()? as usize);
        skip_string(&mut from)?; // host
        from.try_get_i32()?; // port
        skip_string(&mut from)?; // rack
    }
    from.try_get_i32()?; // controller
    for _ in 0..from.try_get_i32()? {
        from.try_get_i16()?; // error
        skip_string(&mut from)?; // name
        from.try_get_u8()?; // internal
        for _ in 0..from.try_get_i32()? {
            from.try_get_i16()?; // error
            from.try_get_i32()?; // partition
            let leader = from.try_get_i32()?;
            let replicas = skip_nodes(&mut from)?;
            let in_sync = skip_nodes(&mut from)?;
            state.leaderless += usize::from(leader < 0);
            state.lagging += usize::from(in_sync < replicas);
        }
    }
    Ok(state)
}

fn skip_string(from: &mut Bytes) -> Result<(), TryGetError> {
    // A length of -1 is a null string.
    let length = from.try_get_i16()?.max(0) as usize;
    skip(from, length)
}

fn skip_nodes(from: &mut Bytes) -> Result<i32, TryGetError> {
    let count = from.try_get_i32()?.max(0);
    skip(from, 4 * count as usize)?;
    Ok(count)
}

fn skip(from: &mut Bytes, requested: usize) -> Result<(), TryGetError> {
    let available = from.remaining();
    if available < requested {
        return Err(TryGetError {
            requested,
            available,
        });
    }
    from.advance(requested);
    Ok(())
}
