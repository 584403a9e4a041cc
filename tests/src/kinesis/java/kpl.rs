//! The Kinesis Producer Library. It supports only TLS, and does not verify certificates here.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{JVM, run, unique};
use crate::containers;

/// A record and where it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Sent {
    /// The record's number: its key is `key-<n modulo the number of keys>`, its payload `record-<n>`.
    pub n: usize,
    /// The shard.
    pub shard: String,
    /// The sequence number of the Kinesis record, which may hold several.
    pub seq: String,
}

/// Sends records, aggregated except for the first. Every third one has the explicit `hash_key`.
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

/// A load to send.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// The size of a payload: the number of the record, from 0, in 8 bytes, padded with `x`.
    pub bytes: usize,
    /// The maximum number of unacknowledged records.
    pub outstanding: usize,
    /// The library's rate limit, as a percentage of a shard's limits.
    pub rate: u32,
    /// The time before the measurement, from when the library begins to aggregate.
    pub uncounted: Duration,
    /// The time of the measurement.
    pub counted: Duration,
}

/// The result of a [`Load`] within the time that was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Counted {
    /// The number of records that were stored.
    pub records: u64,
    /// The time that was measured.
    pub nanos: u64,
    /// The CPU time in nanoseconds, of Java and of the library's native process.
    pub processor: u64,
}

/// Sends records as fast as possible, over these keys in turn, with Java options for a large machine.
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

/// Writes input to a program, and returns all lines that it prints.
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
