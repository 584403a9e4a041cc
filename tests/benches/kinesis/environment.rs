//! The emulators and their streams.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use aws_sdk_kinesis::types::StreamStatus;
use conformance::kinesis::{Emulator, Endpoint, Proxy, Server, Streams, Tls};
use millstream_core::Record;
use millstream_kinesis::Aggregation;
use tokio::runtime::Runtime;

use crate::job::{Link, Target};
use crate::keys::{SHARDS, keys, payload};
use crate::{Result, ours, raw};

/// The number of records in the full stream: what four shards return in about 16 s.
pub(crate) const STORED: usize = 1_200_000;
const FULL: &str = "full";
/// How long the emulator may take to create a stream.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The latency of [`Link::Distant`], there and back: about that between Europe and North America.
pub(crate) const LATENCY: Duration = Duration::from_millis(100);
/// The number of open receipts before the oldest is awaited.
pub(crate) const RECEIPTS: usize = 10_000;

/// Creates the runtime of every process.
pub(crate) fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

pub(crate) struct Environment {
    /// The emulator without limits.
    kinesis: Server,
    /// The emulator with the write limits.
    limited: Server,
    dynamodb: Server,
    made: u32,
}

/// The stream and group of a job, and the proxy that observes it.
pub(crate) struct BenchStream {
    pub(crate) target: Target,
    /// In front of DynamoDB, and in front of Kinesis unless that is reached directly.
    pub(crate) proxy: Proxy,
    /// In front of the proxy if it must be reached with TLS by HTTP/1.1, as long as this is alive.
    _tls: Option<Tls>,
}

/// How clients reach Kinesis.
#[derive(Debug, Clone, Copy)]
enum Access {
    /// The emulator itself.
    Direct,
    /// The proxy.
    Proxy,
    /// The proxy, with TLS by HTTP/1.1.
    Tls,
    /// The proxy as [`Link::AwsLike`].
    AwsLike,
}

impl Environment {
    pub(crate) async fn set() -> Self {
        let (kinesis, limited, dynamodb) = tokio::join!(
            Server::kinesis(Emulator::Ferrokinesis),
            Server::limited_kinesis(),
            Server::dynamodb()
        );
        Self {
            kinesis,
            limited,
            dynamodb,
            made: 0,
        }
    }

    fn bench_stream(
        &mut self,
        stream: String,
        limited: bool,
        access: Access,
    ) -> Result<BenchStream> {
        self.made += 1;
        let kinesis = match limited {
            true => &self.limited,
            false => &self.kinesis,
        };
        let proxy = Proxy::open(kinesis.port(), self.dynamodb.port());
        let itself = |server: &Server| format!("http://127.0.0.1:{}", server.port());
        let mut tls = None;
        let (endpoint, certificate) = match access {
            Access::Direct => (itself(kinesis), None),
            Access::Proxy => (proxy.endpoint(), None),
            Access::Tls => {
                let tls = tls.insert(Tls::open(proxy.port())?);
                (tls.endpoint(), Some(tls.certificate().to_owned()))
            }
            Access::AwsLike => {
                let streams = Streams::Few;
                let address = proxy.network(Endpoint::AwsLike { streams }).address("");
                let certificate = proxy.certificate().to_owned();
                (format!("https://{address}"), Some(certificate))
            }
        };
        let target = Target {
            kinesis: endpoint,
            certificate,
            dynamodb: proxy.endpoint(),
            kinesis_itself: itself(kinesis),
            dynamodb_itself: itself(&self.dynamodb),
            stream,
            group: format!("group-{}", self.made),
        };
        Ok(BenchStream {
            target,
            proxy,
            _tls: tls,
        })
    }

    /// Creates a new group on a new stream. `limited`: with the write limits of shards.
    pub(crate) async fn empty(&mut self, limited: bool, link: Link) -> Result<BenchStream> {
        let access = match link {
            Link::AwsLike => Access::AwsLike,
            Link::Local if !limited => Access::Direct,
            Link::Local | Link::Distant => Access::Tls,
        };
        let bench_stream = self.new_stream(limited, access).await?;
        if link == Link::Distant {
            let network = bench_stream.proxy.network(Endpoint::Plain);
            // In each direction.
            network.of("").delay(LATENCY / 2);
        }
        Ok(bench_stream)
    }

    /// Creates a new group on a new stream, both behind a proxy that counts all requests.
    pub(crate) async fn watched(&mut self) -> Result<BenchStream> {
        self.new_stream(false, Access::Proxy).await
    }

    /// Returns the same group on the same stream, behind a proxy of its own.
    pub(crate) fn watched_again(&mut self, other: &Target) -> Result<BenchStream> {
        let stream = other.stream.clone();
        let mut bench_stream = self.bench_stream(stream, false, Access::Proxy)?;
        bench_stream.target.group.clone_from(&other.group);
        Ok(bench_stream)
    }

    async fn new_stream(&mut self, limited: bool, access: Access) -> Result<BenchStream> {
        let stream = format!("stream-{}", self.made);
        let bench_stream = self.bench_stream(stream, limited, access)?;
        create(&bench_stream.target).await?;
        Ok(bench_stream)
    }

    /// Creates a new group on the full stream.
    pub(crate) fn full(&mut self) -> Result<BenchStream> {
        self.bench_stream(FULL.to_owned(), false, Access::Proxy)
    }

    pub(crate) async fn delete(&self, target: &Target) -> Result<()> {
        let kinesis = raw::kinesis(&target.kinesis_itself);
        kinesis
            .delete_stream()
            .stream_name(&target.stream)
            .send()
            .await?;
        Ok(())
    }

    /// Creates the stream that [`full`](Self::full) reads.
    pub(crate) async fn fill(&mut self) -> Result<()> {
        let full = self.bench_stream(FULL.to_owned(), false, Access::Direct)?;
        let target = full.target;
        create(&target).await?;
        let mut config = ours::config(&target);
        config.producer.aggregation = Aggregation::Kpl;
        config.producer.rate = 10.0.try_into()?;
        let producer = config.connect().await?.producer(FULL).open().await?;
        let mut receipts = VecDeque::with_capacity(RECEIPTS);
        let keys = keys();
        for (number, key) in (0..STORED as u64).zip(keys.iter().cycle()) {
            if receipts.len() == RECEIPTS
                && let Some(oldest) = receipts.pop_front()
            {
                let _: millstream_core::RecordMetadata = oldest.await?;
            }
            let record = Record::new(payload(number)).key(key.clone());
            receipts.push_back(producer.send(record).await?);
        }
        Ok(producer.close().await?)
    }
}

async fn create(target: &Target) -> Result<()> {
    let kinesis = raw::kinesis(&target.kinesis_itself);
    let shards = i32::try_from(SHARDS)?;
    let created = kinesis.create_stream().stream_name(&target.stream);
    created.shard_count(shards).send().await?;
    let begun = Instant::now();
    loop {
        let asked = kinesis
            .describe_stream_summary()
            .stream_name(&target.stream);
        let reported = asked.send().await?.stream_description_summary;
        if reported.is_some_and(|reported| reported.stream_status == StreamStatus::Active) {
            return Ok(());
        }
        if begun.elapsed() > TIMEOUT {
            return Err(format!("{} is not active after {TIMEOUT:?}", target.stream).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
