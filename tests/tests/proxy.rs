//! The TCP proxy forwards every byte, and injects exactly the faults that it is asked for. Suite cases
//! rely on them.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conformance::TcpProxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

const TIMEOUT: Duration = Duration::from_secs(20);

/// The duration of a fault. No result depends on the speed of the machine.
const A_WHILE: Duration = Duration::from_millis(300);

/// A server that sends back the bytes it receives.
struct Echo {
    address: SocketAddr,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let all = received.clone();
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let all = all.clone();
                tokio::spawn(async move {
                    let mut piece = [0; 4096];
                    while let Ok(length @ 1..) = client.read(&mut piece).await {
                        all.lock().unwrap().extend(&piece[..length]);
                        if client.write_all(&piece[..length]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, received }
    }

    async fn receives(&self, bytes: &[u8]) {
        let begun = Instant::now();
        while *self.received.lock().unwrap() != bytes {
            let received = self.received.lock().unwrap().clone();
            assert!(begun.elapsed() < TIMEOUT, "it received {received:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn connect(proxy: &TcpProxy, client: &str) -> TcpStream {
    TcpStream::connect(proxy.address(client)).await.unwrap()
}

/// Sends one byte, and returns the byte that comes back; `None` at the end of the connection.
async fn exchange(connection: &mut TcpStream, byte: u8) -> Option<u8> {
    // A closed connection may reject it.
    let _ = connection.write_all(&[byte]).await;
    let read = timeout(TIMEOUT, connection.read_u8()).await;
    read.expect("a byte, or the end").ok()
}

#[tokio::test]
async fn all_bytes_pass_and_then_the_end() {
    let echo = Echo::start().await;
    let proxy = TcpProxy::new(echo.address);
    let (mut read, mut write) = connect(&proxy, "a").await.into_split();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sent = bytes.clone();
    let sending = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut returned = Vec::new();
    let ended = timeout(TIMEOUT, read.read_to_end(&mut returned)).await;
    ended.expect("the end passes").unwrap();
    sending.await.unwrap();
    assert!(returned == bytes, "{} bytes came back", returned.len());
    assert_eq!(proxy.all().hits(), 0);
}

#[tokio::test]
async fn a_cut_closes_the_connections_of_one_client_and_refuses_new_ones() {
    let echo = Echo::start().await;
    let proxy = TcpProxy::new(echo.address);
    let (mut a, mut b) = (connect(&proxy, "a").await, connect(&proxy, "b").await);
    assert_eq!(exchange(&mut a, 1).await, Some(1));
    proxy.of("a").cut();
    assert_eq!(exchange(&mut a, 2).await, None);
    let mut again = connect(&proxy, "a").await;
    assert_eq!(exchange(&mut again, 3).await, None);
    assert_eq!(exchange(&mut b, 4).await, Some(4));
    assert_eq!((proxy.of("a").hits(), proxy.of("b").hits()), (2, 0));
    proxy.all().heal();
    assert_eq!(exchange(&mut connect(&proxy, "a").await, 5).await, Some(5));
    echo.receives(&[1, 4, 5]).await;
}

#[tokio::test]
async fn nothing_passes_in_a_freeze_and_what_was_sent_arrives_afterwards() {
    let echo = Echo::start().await;
    let proxy = TcpProxy::new(echo.address);
    let (mut a, mut b) = (connect(&proxy, "a").await, connect(&proxy, "b").await);
    assert_eq!(exchange(&mut a, 1).await, Some(1));
    proxy.of("a").freeze(A_WHILE);
    let begun = Instant::now();
    // This client gives up, and its request arrives nevertheless.
    let mut new = connect(&proxy, "a").await;
    new.write_all(&[2]).await.unwrap();
    drop(new);
    assert_eq!(exchange(&mut b, 3).await, Some(3));
    echo.receives(&[1, 3]).await;
    assert!(begun.elapsed() < A_WHILE, "the machine is too slow");
    echo.receives(&[1, 3, 2]).await;
    assert!(begun.elapsed() >= A_WHILE);

    proxy.of("a").freeze(A_WHILE);
    let begun = Instant::now();
    assert_eq!(exchange(&mut a, 4).await, Some(4));
    assert!(begun.elapsed() >= A_WHILE);

    proxy.of("a").freeze(TIMEOUT * 2);
    a.write_all(&[5]).await.unwrap();
    proxy.of("a").thaw();
    assert_eq!(a.read_u8().await.unwrap(), 5);
    assert!(proxy.of("a").hits() >= 2);
}

#[tokio::test]
async fn a_response_is_swallowed_when_its_request_has_arrived() {
    let echo = Echo::start().await;
    let proxy = TcpProxy::new(echo.address);
    let (mut a, mut b) = (connect(&proxy, "a").await, connect(&proxy, "b").await);
    assert_eq!(exchange(&mut a, 1).await, Some(1));
    proxy.of("a").swallow_responses();
    assert_eq!(exchange(&mut a, 2).await, None);
    let mut new = connect(&proxy, "a").await;
    assert_eq!(exchange(&mut new, 3).await, None);
    assert_eq!(exchange(&mut b, 4).await, Some(4));
    proxy.of("a").heal();
    let mut new = connect(&proxy, "a").await;
    assert_eq!(exchange(&mut new, 5).await, Some(5));
    echo.receives(&[1, 2, 3, 4, 5]).await;
    assert_eq!((proxy.of("a").hits(), proxy.of("b").hits()), (2, 0));
}

#[tokio::test]
async fn a_delay_concerns_both_directions_and_no_throughput() {
    let echo = Echo::start().await;
    let proxy = TcpProxy::new(echo.address);
    let mut a = connect(&proxy, "a").await;
    let by = Duration::from_millis(100);
    proxy.all().delay(by);
    let begun = Instant::now();
    assert_eq!(exchange(&mut a, 1).await, Some(1));
    assert!(begun.elapsed() >= by * 2, "{:?}", begun.elapsed());
    // Sequentially, these would take 20 s.
    let begun = Instant::now();
    let (mut read, mut write) = a.into_split();
    let sending = tokio::spawn(async move {
        for n in 0..100 {
            write.write_all(&[n]).await.unwrap();
        }
        write
    });
    let mut returned = [0; 100];
    let read = timeout(TIMEOUT, read.read_exact(&mut returned)).await;
    read.expect("all come back").unwrap();
    assert!(returned.iter().copied().eq(0..100), "{returned:?}");
    assert!(begun.elapsed() < by * 50, "{:?}", begun.elapsed());
    drop(sending.await);
}

#[tokio::test]
async fn a_sibling_has_faults_of_its_own() {
    let echo = Echo::start().await;
    let proxy = TcpProxy::new(echo.address);
    let sibling = proxy.sibling();
    let (mut a, mut b) = (connect(&proxy, "a").await, connect(&sibling, "a").await);
    proxy.all().cut();
    assert_eq!(exchange(&mut a, 1).await, None);
    assert_eq!(exchange(&mut b, 2).await, Some(2));
    drop(proxy);
    assert_eq!(exchange(&mut b, 3).await, Some(3));
    drop(sibling);
    assert_eq!(exchange(&mut b, 4).await, None);
}
