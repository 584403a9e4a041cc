//! The emulators and their streams.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use aws_sdk_kinesis::types::StreamStatus;
use conformance::kinesis::{Emulator, Proxy, Server, Tls};
use millstream_core::Record;
use millstream_kinesis::Aggregation;
use tokio::runtime::Runtime;

use crate::job::Target;
use crate::keys::{SHARDS, keys, payload};
use crate::{Result, ours, raw};

/// The number of records in the full stream: what four shards return in about 16 s.
pub(crate) const STORED: usize = 1_200_000;
const FULL: &str = "full";
/// How long the emulator may take to create a stream.
const TIMEOUT: Duration = Duration::from_secs(30);
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
    /// In front of Kinesis if it is limited or full, and in front of DynamoDB.
    pub(crate) proxy: Proxy,
    /// In front of the proxy if Kinesis is limited, as long as this is alive.
    _tls: Option<Tls>,
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

    async fn bench_stream(
        &mut self,
        stream: String,
        limited: bool,
        watched: bool,
    ) -> Result<BenchStream> {
        self.made += 1;
        let kinesis = match limited {
            true => &self.limited,
            false => &self.kinesis,
        };
        let proxy = Proxy::open(kinesis.port(), self.dynamodb.port());
        let tls = match limited {
            true => Some(Tls::open(proxy.port())?),
            false => None,
        };
        let itself = |server: &Server| format!("http://127.0.0.1:{}", server.port());
        let target = Target {
            kinesis: match &tls {
                Some(tls) => tls.endpoint(),
                None if watched => proxy.endpoint(),
                None => itself(kinesis),
            },
            certificate: tls.as_ref().map(|tls| tls.certificate().to_owned()),
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

    /// Creates a new group on a new stream.
    pub(crate) async fn empty(&mut self, limited: bool) -> Result<BenchStream> {
        let stream = format!("stream-{}", self.made);
        let bench_stream = self.bench_stream(stream, limited, limited).await?;
        create(&bench_stream.target).await?;
        Ok(bench_stream)
    }

    /// Creates a new group on the full stream.
    pub(crate) async fn full(&mut self) -> Result<BenchStream> {
        self.bench_stream(FULL.to_owned(), false, true).await
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
        let target = self
            .bench_stream(FULL.to_owned(), false, false)
            .await?
            .target;
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
