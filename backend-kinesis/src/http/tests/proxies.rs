use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::child_process;
use crate::connection::Connection;
use crate::fake_service::{ARN, FakeService};
use crate::stream;
use crate::test_certificate::TestCertificate;

/// Only the proxy knows where it is: no name under this domain ever resolves.
const HOST: &str = "kinesis.invalid";

/// The variable with the address to which the child sends its requests.
const ENDPOINT: &str = "MILLSTREAM_TEST_ENDPOINT";

/// A proxy that leads to one port, whatever its clients ask for.
struct Proxy {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = asked.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, to, notes.clone()));
            }
        });
        Self {
            url: format!("http://user:hush@{address}"),
            asked,
        }
    }

    /// Returns the heads of the requests for a tunnel.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(client: TcpStream, to: u16, asked: Arc<Mutex<Vec<String>>>) {
    let mut client = BufReader::new(client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if client.read_line(&mut head).await.unwrap() == 0 {
            return;
        }
    }
    asked.lock().unwrap().push(head);
    let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    drop(copy_bidirectional(&mut client, &mut server).await);
}

/// Sends a request to each service.
async fn ask(endpoint: &str) {
    let mut config = FakeService::start().await.config();
    config.endpoint = Some(endpoint.to_owned());
    config.dynamodb_endpoint = config.endpoint.clone();
    let connection = Connection::open(config).await.unwrap();
    stream::shards(&connection, "test", ARN).await.unwrap();
    let scan = connection.dynamodb.scan().table_name("group");
    scan.send().await.unwrap();
}

#[tokio::test]
async fn requests_to_https_addresses_take_the_proxy_of_the_environment() {
    if child_process::is_child() {
        return ask(&std::env::var(ENDPOINT).unwrap()).await;
    }
    const TEST: &str =
        "http::tests::proxies::requests_to_https_addresses_take_the_proxy_of_the_environment";
    let certificate = TestCertificate::new(&[HOST, "localhost"]);
    let service = FakeService::start_with_tls(certificate.acceptor("http/1.1")).await;
    let proxy = Proxy::start(service.port()).await;
    let proxied = format!("https://{HOST}");
    let variables = [
        ("HTTPS_PROXY", &*proxy.url),
        ("NO_PROXY", "localhost"),
        ("AWS_CA_BUNDLE", certificate.file()),
        (ENDPOINT, &proxied),
    ];
    child_process::run(TEST, &variables).await;
    assert_eq!(service.noted().len(), 2);
    let asked = proxy.asked();
    assert_eq!(asked.len(), 2, "one for each service: {asked:?}");
    for head in asked {
        assert!(head.starts_with(&format!("CONNECT {HOST}:443 ")), "{head}");
        // The login `user:hush`.
        let login = "proxy-authorization: basic dxnlcjpodxno";
        assert!(head.to_lowercase().contains(login), "{head}");
    }

    let direct = format!("https://localhost:{}", service.port());
    let [proxy_url, no_proxy, bundle, _] = variables;
    let variables = [proxy_url, no_proxy, bundle, (ENDPOINT, &direct)];
    child_process::run(TEST, &variables).await;
    assert_eq!(service.noted().len(), 4);
    assert_eq!(proxy.asked().len(), 2, "`NO_PROXY` has the host");
}
