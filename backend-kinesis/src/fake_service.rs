//! A fake of both services for tests: it notes each request, and has one stream of two shards without records, which is
//! of another account, and one lease.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::config::{Config, Credentials};

/// The ARN of the stream, by whose name there is none.
pub(crate) const ARN: &str = "arn:aws:kinesis:eu-west-1:123456789012:stream/events";

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Noted {
    pub(crate) operation: String,
    /// Its `authorization`, with the key and the region for which it is signed.
    pub(crate) authorization: String,
    pub(crate) body: Value,
}

/// Ends with the runtime of the test.
#[derive(Debug)]
pub(crate) struct FakeService {
    address: SocketAddr,
    noted: Arc<Mutex<Vec<Noted>>>,
}

impl FakeService {
    pub(crate) async fn start() -> Self {
        Self::listen(None).await
    }

    /// Starts one that is reached with TLS alone.
    pub(crate) async fn start_with_tls(acceptor: TlsAcceptor) -> Self {
        Self::listen(Some(acceptor)).await
    }

    async fn listen(acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let noted: Arc<Mutex<Vec<Noted>>> = Arc::default();
        let notes = noted.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, notes) = (acceptor.clone(), notes.clone());
                tokio::spawn(async move {
                    let Some(acceptor) = acceptor else {
                        return serve(stream, notes).await;
                    };
                    // A client that does not trust the certificate closes the connection.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, notes).await;
                    }
                });
            }
        });
        Self { address, noted }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns its address, without TLS.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns settings of a connection to it.
    pub(crate) fn config(&self) -> Config {
        Config {
            region: Some("eu-west-1".into()),
            credentials: Some(Credentials {
                access_key_id: "OURS".into(),
                secret_access_key: "hush".into(),
                session_token: None,
            }),
            endpoint: Some(self.url()),
            dynamodb_endpoint: Some(self.url()),
            request_timeout: Duration::from_secs(1),
            ..Config::default()
        }
    }

    pub(crate) fn noted(&self) -> Vec<Noted> {
        self.noted.lock().unwrap().clone()
    }

    /// Returns the operations of all requests, each of which must name the stream by its ARN alone.
    pub(crate) fn operations_by_arn(&self) -> BTreeSet<String> {
        let noted = self.noted().into_iter();
        let operations = noted.map(|noted| {
            assert_eq!(noted.body["StreamARN"], ARN, "{noted:?}");
            assert_eq!(noted.body.get("StreamName"), None, "{noted:?}");
            noted.operation
        });
        operations.collect()
    }
}

/// Serves one connection.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, noted: Arc<Mutex<Vec<Noted>>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await {
        let (status, body) = match request.body.get("StreamName") {
            Some(_) => (
                "400 Bad Request",
                json!({ "__type": "ResourceNotFoundException" }),
            ),
            None => ("200 OK", response_to(&request.operation)),
        };
        noted.lock().unwrap().push(request);
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let response = head + &body;
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Returns the next request. `None` when the connection is closed.
async fn read(stream: &mut BufReader<impl AsyncRead + Unpin>) -> Option<Noted> {
    let (mut operation, mut authorization, mut length) = (String::new(), String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        let value = value.trim();
        match &*name.to_ascii_lowercase() {
            "x-amz-target" => operation = value.rsplit('.').next()?.to_owned(),
            "authorization" => authorization = value.to_owned(),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Noted {
        operation,
        authorization,
        body: serde_json::from_slice(&body).ok()?,
    })
}

fn response_to(operation: &str) -> Value {
    let shard = |number: u128| {
        let half = u128::MAX / 2;
        let first = number * (half + 1);
        json!({
            "ShardId": format!("shardId-{number:012}"),
            "HashKeyRange": {
                "StartingHashKey": first.to_string(),
                "EndingHashKey": (first + half).to_string(),
            },
            "SequenceNumberRange": { "StartingSequenceNumber": "1" },
        })
    };
    match operation {
        "DescribeStreamSummary" => json!({
            "StreamDescriptionSummary": {
                "StreamName": "events",
                "StreamARN": ARN,
                "StreamStatus": "ACTIVE",
                "RetentionPeriodHours": 24,
                "StreamCreationTimestamp": 1_700_000_000.0,
                "EnhancedMonitoring": [],
                "OpenShardCount": 2,
            },
        }),
        "ListShards" => json!({ "Shards": [shard(0), shard(1)] }),
        "GetShardIterator" => json!({ "ShardIterator": "iterator" }),
        "GetRecords" => json!({
            "Records": [],
            "NextShardIterator": "iterator",
            "MillisBehindLatest": 0,
        }),
        "PutRecords" => json!({
            "FailedRecordCount": 0,
            "Records": [{ "ShardId": "shardId-000000000000", "SequenceNumber": "1" }],
        }),
        "Scan" => json!({
            "Items": [{
                "leaseKey": { "S": "shardId-000000000000" },
                "leaseCounter": { "N": "5" },
                "checkpoint": { "S": "TRIM_HORIZON" },
                "millstreamStream": { "S": ARN },
                "millstreamCreated": { "N": "1700000000" },
            }],
            "Count": 1,
            "ScannedCount": 1,
        }),
        _ => json!({}),
    }
}
