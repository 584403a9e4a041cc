//! The Kinesis Producer Library. It speaks TLS alone, and asks for no certificate here.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{JVM, run, unique};
use crate::containers;

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Sent {
    /// Which: its key is `key-<n modulo the number of keys>`, its payload `record-<n>`.
    pub n: usize,
    /// The shard.
    pub shard: String,
    /// The number of the Kinesis record, which many share.
    pub seq: String,
}

/// Sends records, aggregated but for the first. Each third one goes by `hash_key`.
///
/// # Panics
/// If one is not stored.
pub async fn produce(
    endpoint: &str,
    stream: &str,
    count: usize,
    keys: usize,
    hash_key: &str,
) -> Vec<Sent> {
    containers::ready("kcl").await;
    let (count, keys) = (count.to_string(), keys.to_string());
    let options = [
        ("kinesis", endpoint),
        ("stream", stream),
        ("count", &count),
        ("keys", &keys),
        ("hash-key", hash_key),
    ];
    run_to_end(run(&unique("kpl"), "kpl", &options), "").await
}

/// How much is sent, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Of a payload: the number of the record, from 0, in 8 bytes, and as many `x` as are missing.
    pub bytes: usize,
    /// The most records that are sent and not acknowledged.
    pub outstanding: usize,
    /// The percentage of a shard's limits that the library keeps to.
    pub rate: u32,
    /// Counts from when the library begins to aggregate.
    pub uncounted: Duration,
    /// Comes after it.
    pub counted: Duration,
}

/// What became of a [`Load`] within the time that counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Counted {
    /// Those that were stored.
    pub records: u64,
    /// How long it was.
    pub nanos: u64,
    /// Of it, the nanoseconds of processors: of Java and of the program that the library sends by.
    pub processor: u64,
}

/// Sends as many records as go, over these keys in turn, with Java's options for a machine that is not
/// small.
///
/// # Panics
/// If one is not stored.
pub async fn load(endpoint: &str, stream: &str, keys: &[String], load: Load) -> Counted {
    containers::ready("kcl").await;
    let options = [
        ("kinesis", endpoint.to_owned()),
        ("stream", stream.to_owned()),
        ("bytes", load.bytes.to_string()),
        ("outstanding", load.outstanding.to_string()),
        ("rate", load.rate.to_string()),
        ("uncounted", load.uncounted.as_millis().to_string()),
        ("counted", load.counted.as_millis().to_string()),
    ];
    let options = options.each_ref().map(|(name, value)| (*name, &**value));
    let mut command = run(&unique("kpl-load"), "kpl-load", &options);
    command.env(JVM, "-Xmx1g");
    let output = run_to_end(command, &keys.join("\n")).await;
    let [counted] = output[..] else {
        panic!("it printed {output:?}")
    };
    counted
}

/// Passes input to a program, and returns all lines that it prints.
async fn run_to_end<T: DeserializeOwned>(mut command: Command, input: &str) -> Vec<T> {
    let mut command = command.spawn().expect("the docker command can be run");
    let mut stdin = command.stdin.take().expect("it is piped");
    let written = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = command.wait_with_output().await;
    let output = output.expect("it can be waited for");
    let (output, log) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    written.unwrap_or_else(|error| panic!("it read nothing: {error}, after {log}"));
    let lines: Result<_, _> = output.lines().map(serde_json::from_str).collect();
    lines.unwrap_or_else(|error| panic!("{error} in {output}, after {log}"))
}
