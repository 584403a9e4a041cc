//! Length-prefixed messages on the wire.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::Encodable;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Larger than any message that a broker accepts by default; anything larger is not the Kafka protocol.
const MOST: usize = 100 << 20;

const LENGTH: usize = 4;

/// Reads one message, including its length. Returns `None` at the end of the stream.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Bytes>> {
    let mut length = [0; LENGTH];
    match from.read_exact(&mut length).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let body = u32::from_be_bytes(length) as usize;
    if body > MOST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {body} bytes"),
        ));
    }
    let mut frame = BytesMut::zeroed(LENGTH + body);
    frame[..LENGTH].copy_from_slice(&length);
    from.read_exact(&mut frame[LENGTH..]).await?;
    Ok(Some(frame.freeze()))
}

/// Returns the message without its length.
pub(super) fn body(frame: &Bytes) -> Bytes {
    frame.slice(LENGTH..)
}

/// Returns the request that a response belongs to.
pub(super) fn correlation(response: &Bytes) -> io::Result<i32> {
    let id = body(response).try_get_i32();
    id.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Encodes a message of these parts, each with its version.
pub(super) fn of(
    header: (&impl Encodable, i16),
    message: (&impl Encodable, i16),
) -> io::Result<Bytes> {
    let mut frame = BytesMut::new();
    frame.put_u32(0);
    let encoded = header.0.encode(&mut frame, header.1);
    let encoded = encoded.and_then(|()| message.0.encode(&mut frame, message.1));
    encoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let body = u32::try_from(frame.len() - LENGTH).expect("a message is far below 4 GB");
    frame[..LENGTH].copy_from_slice(&body.to_be_bytes());
    Ok(frame.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_read_whole_until_the_stream_ends() {
        let mut stream: &[u8] = &[0, 0, 0, 5, 0, 0, 0, 7, 42, 0, 0, 0, 4, 0, 0, 0, 8];
        let first = read(&mut stream).await.unwrap().unwrap();
        assert_eq!(&first[..], [0, 0, 0, 5, 0, 0, 0, 7, 42]);
        assert_eq!(&body(&first)[..], [0, 0, 0, 7, 42]);
        assert_eq!(correlation(&first).unwrap(), 7);
        let second = read(&mut stream).await.unwrap().unwrap();
        assert_eq!(correlation(&second).unwrap(), 8);
        assert_eq!(read(&mut stream).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_message_or_is_no_kafka_is_an_error() {
        let mut cut: &[u8] = &[0, 0, 0, 5, 0];
        let error = read(&mut cut).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let mut http: &[u8] = b"GET / HTTP/1.1";
        let error = read(&mut http).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
