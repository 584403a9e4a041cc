//! Threads and connections of a process with several groups and producers.
//!
//! `tests/bench kafka_footprint` runs it. The cluster is librdkafka's mock, of 9 brokers, in a separate process.
//! The benchmark counts the threads of librdkafka and of the backend, without those of the runtime, and the
//! connections to brokers: when all have joined and sent a record, and when clients that are no longer needed
//! have ended.

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::future::try_join_all;
use millstream_core::{Record, Start};
use rdkafka::mocking::MockCluster;

const BROKERS: i32 = 9;
const GROUPS: usize = 10;
const PRODUCERS: usize = 5;

/// After this time, a client that was used for a group's initial requests has ended.
const IDLE: Duration = Duration::from_secs(45);

/// The argument of the process that runs the cluster.
const CLUSTER: &str = "cluster";

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some(CLUSTER) {
        return serve();
    }
    let mut cluster = Command::new(std::env::current_exe()?)
        .arg(CLUSTER)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let measured = measure(&mut cluster);
    // It ends when its input is closed.
    drop(cluster.stdin.take());
    cluster.wait()?;
    measured
}

/// Runs the cluster until the input ends.
fn serve() -> Result<(), Box<dyn Error>> {
    let cluster = MockCluster::new(BROKERS)?;
    for stream in 0..GROUPS {
        cluster.create_topic(&name(stream), BROKERS, 1)?;
    }
    println!("{}", cluster.bootstrap_servers());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn name(stream: usize) -> String {
    format!("stream-{stream}")
}

fn measure(cluster: &mut Child) -> Result<(), Box<dyn Error>> {
    let output = cluster.stdout.take().ok_or("no output")?;
    let mut brokers = String::new();
    BufReader::new(output).read_line(&mut brokers)?;
    let brokers: Vec<String> = brokers.trim().split(',').map(str::to_owned).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut config = millstream_kafka::Config::default();
        config.brokers = brokers;
        let client = config.connect().await?;
        let join = |stream| {
            let group = client.group(format!("group-{stream}")).stream(name(stream));
            let group = group.start(Start::Earliest);
            async move { group.join().await }
        };
        let members = try_join_all((0..GROUPS).map(join)).await?;
        // The mock has no topic settings to describe. Each producer waits for them when it is opened.
        let open = |stream| {
            let opening = client.producer(name(stream));
            async move {
                let producer = opening.open().await?;
                producer.send(Record::new("1")).await?.await?;
                Ok::<_, millstream_core::Error>(producer)
            }
        };
        let _producers = try_join_all((0..PRODUCERS).map(open)).await?;
        report("joined")?;
        tokio::time::sleep(IDLE).await;
        report("steady")?;
        for member in members {
            member.close().await?;
        }
        Ok(())
    })
}

fn report(when: &str) -> Result<(), Box<dyn Error>> {
    println!("kafka_footprint_{when}_threads {} threads", threads()?);
    println!(
        "kafka_footprint_{when}_connections {} connections",
        connections()?
    );
    Ok(())
}

fn threads() -> std::io::Result<usize> {
    let mut count = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        // A thread that has ended meanwhile does not count.
        let name = fs::read_to_string(thread?.path().join("comm")).unwrap_or_default();
        count += usize::from(name.starts_with("rdk:") || name.starts_with("kafka-"));
    }
    Ok(count)
}

/// Counts the established TCP connections.
fn connections() -> std::io::Result<usize> {
    let mut sockets = HashSet::new();
    for file in fs::read_dir("/proc/self/fd")? {
        // A file that was closed meanwhile does not count.
        let Ok(target) = fs::read_link(file?.path()) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        let inode = target
            .strip_prefix("socket:[")
            .and_then(|it| it.strip_suffix(']'));
        sockets.extend(inode.map(str::to_owned));
    }
    const STATE: usize = 3;
    const INODE: usize = 9;
    let table = fs::read_to_string("/proc/self/net/tcp")?;
    let ours = table.lines().skip(1).filter(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(STATE) == Some(&"01")
            && fields
                .get(INODE)
                .is_some_and(|inode| sockets.contains(*inode))
    });
    Ok(ours.count())
}
