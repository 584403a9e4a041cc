use std::time::Duration;

use aws_smithy_types::body::SdkBody;
use http::Request;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{self, Instant, timeout};

use super::super::Transport;
use super::super::pool::Pool;
use crate::test_certificate::TestCertificate;

/// The client's first bytes.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The types of frames.
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

/// The flag of the frame that acknowledges settings.
const ACK: u8 = 1;

/// The flag of headers that are complete.
const END_HEADERS: u8 = 4;

/// The header `:status: 200`, as HPACK's static table has it.
const STATUS_200: u8 = 0x88;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// Serves HTTP/2 over connections that die without a word: a request gets the header of a response, and nothing after
/// it. Returns the port, and how many pings have arrived.
async fn server(certificate: &TestCertificate) -> (u16, watch::Receiver<u32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = certificate.acceptor("h2");
    let (pings, received) = watch::channel(0);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(preface, PREFACE);
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        // Until the client closes the connection.
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let [a, b, c, kind, flags, id @ ..] = head;
            let (length, id) = (u32::from_be_bytes([0, a, b, c]), u32::from_be_bytes(id));
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await.unwrap();
            let response = match kind {
                SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
                HEADERS => frame(HEADERS, END_HEADERS, id, &[STATUS_200]),
                PING if flags & ACK == 0 => {
                    pings.send_modify(|pings| *pings += 1);
                    continue;
                }
                _ => continue,
            };
            stream.write_all(&response).await.unwrap();
        }
    });
    (port, received)
}

#[tokio::test]
async fn a_subscription_whose_pings_get_no_response_ends() {
    let certificate = TestCertificate::new(&["localhost"]);
    let (port, pings) = server(&certificate).await;
    let transport = Transport::load(Some(certificate.file().as_ref())).await;
    let pool = Pool::new(transport.unwrap().connectors);
    let request = Request::post(format!("https://localhost:{port}/"));
    let request = request.body(SdkBody::empty()).unwrap();
    let subscribed = pool.subscribe(request, Duration::from_secs(5)).await;
    let mut body = subscribed.unwrap().into_body();
    time::pause();
    let silent = Instant::now();
    let ended = timeout(Duration::from_secs(120), body.frame()).await;
    let ended = ended.expect("the dead connection is left");
    assert!(matches!(ended, Some(Err(_))), "{ended:?}");
    // A ping after 20 s, and 10 s for its response.
    let took = silent.elapsed();
    let expected = Duration::from_secs(29)..=Duration::from_secs(31);
    assert!(expected.contains(&took), "{took:?}");
    assert_eq!(*pings.borrow(), 1);
}
