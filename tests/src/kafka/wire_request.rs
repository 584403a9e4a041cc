//! Sends a broker raw protocol requests that no client library offers.

use std::io;
use std::net::Ipv4Addr;

use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::frame;

/// Sends a request to the broker behind this port of 127.0.0.1.
pub(super) async fn send_request<R: Request>(
    port: u16,
    version: i16,
    request: &R,
) -> io::Result<R::Response> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version);
    let frame = frame::of((&header, R::header_version(version)), (request, version))?;
    let mut broker = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    broker.write_all(&frame).await?;
    let response = frame::read(&mut broker).await?;
    let response = response.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut body = frame::body(&response);
    let header_version = R::Response::header_version(version);
    ResponseHeader::decode(&mut body, header_version)
        .and_then(|_| R::Response::decode(&mut body, version))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
