//! The memory of a member that reads many shards with a backlog, in a process of its own.

use std::io::{Write, stdout};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use conformance::kinesis::Testbed;
use conformance::{Harness, eventually};
use futures_util::{StreamExt, stream};
use millstream_core::Start;
use millstream_kinesis::{Config, Credentials};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

use crate::fixture::Fixture;

/// The variable with the member's options as JSON. A process that has it is a member, not a test.
pub(crate) const VARIABLE: &str = "MILLSTREAM_TEST_MEMORY";

pub(crate) const SHARDS: usize = 200;

/// The records of each shard, and their size in bytes: 240 MB in all.
const RECORDS: usize = 12;
const RECORD: usize = 100_000;

/// The buffer of the member in bytes.
const BUFFER: usize = 16 << 20;

/// What its process may have in bytes, as the README says: responses and waiting records with a buffer for each, the batches
/// of all partitions, responses that are being decoded, and the program.
const PROCESS: usize = 144 << 20;

/// How long the memory must not have grown.
const STABLE: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, Deserialize)]
struct Options {
    config: Config,
    stream: String,
    group: String,
}

/// Nothing is handled, and all shards have more than there is room for.
pub(crate) async fn is_bounded(fixture: Fixture) {
    let (fleet, harness) = (&fixture.fleet, &fixture.harness);
    fill(&fixture).await;
    let mut config = None;
    harness
        .client_with("", |own| config = Some(own.clone()))
        .await;
    let options = Options {
        config: config.expect("it was connected"),
        stream: fleet.stream.clone(),
        group: fleet.group.clone(),
    };
    let itself = std::env::current_exe().expect("a process knows its program");
    let child = Command::new(itself)
        .env(
            VARIABLE,
            serde_json::to_string(&options).expect("it can be written"),
        )
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program can be started again");
    let output = timeout(harness.timing().timeout * 2, child.wait_with_output()).await;
    let output = output
        .expect("it ends in time")
        .expect("it can be waited for");
    assert!(output.status.success(), "it ended with {}", output.status);
    let peak = String::from_utf8_lossy(&output.stdout);
    let peak: usize = peak.trim().parse().expect("the peak in bytes");
    assert!(
        peak <= PROCESS,
        "{} MiB for a buffer of {} MiB",
        peak >> 20,
        BUFFER >> 20
    );
}

async fn fill(fixture: &Fixture) {
    let kinesis = fixture.harness.testbed().kinesis();
    let part = u128::MAX / SHARDS as u128;
    let entry = |shard: usize| {
        let entry = PutRecordsRequestEntry::builder();
        let entry = entry
            .partition_key("any")
            .data(Blob::new(vec![b'x'; RECORD]));
        let hash_key = part * shard as u128 + part / 2;
        entry.explicit_hash_key(hash_key.to_string()).build()
    };
    let sends = (0..SHARDS).map(|shard| async move {
        let put = kinesis.put_records().stream_name(&fixture.fleet.stream);
        let entries = (0..RECORDS).map(|_| entry(shard).expect("it is complete"));
        let put = put.set_records(Some(entries.collect()));
        // The client may have been used by another case, whose runtime is gone.
        eventually(fixture.harness.timing(), "they are stored", || async {
            let put = timeout(Duration::from_secs(10), put.clone().send()).await;
            (put.ok()?.ok()?.failed_record_count == Some(0)).then_some(())
        })
        .await;
    });
    stream::iter(sends)
        .buffer_unordered(4)
        .collect::<()>()
        .await;
}

/// Runs the member, and prints the peak of its memory in bytes.
pub(crate) fn run(options: &str) -> ExitCode {
    let options: Options = serde_json::from_str(options).expect("options");
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    let peak = runtime.expect("a runtime").block_on(hold(options));
    writeln!(stdout(), "{peak}").expect("its parent reads it");
    ExitCode::SUCCESS
}

async fn hold(options: Options) -> usize {
    let mut config = options.config;
    // Serializing the configuration leaves out secrets.
    let [id, secret] = Testbed::CREDENTIALS;
    config.credentials = Some(Credentials {
        access_key_id: id.into(),
        secret_access_key: secret.to_owned().into(),
        session_token: None,
    });
    let client = config.connect().await.expect("it connects");
    let group = client.group(options.group).stream(options.stream);
    let group = group.start(Start::Earliest).buffer_bytes(BUFFER);
    let consumer = group.join().await.expect("it joins");
    let owns_all = || consumer.handle().partitions().len() == SHARDS;
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut peak, mut since) = (resident(), Instant::now());
    while !owns_all() || since.elapsed() < STABLE {
        assert!(
            Instant::now() < deadline,
            "{peak} bytes, and it still grows"
        );
        sleep(Duration::from_millis(100)).await;
        let now = resident();
        // Less than a record is no growth.
        if now > peak + RECORD {
            (peak, since) = (now, Instant::now());
        }
    }
    resident()
}

/// Returns the peak of this process's resident memory in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    peak.expect("it is reported")
        .parse::<usize>()
        .expect("a number")
        << 10
}
