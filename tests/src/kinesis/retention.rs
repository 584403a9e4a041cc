//! Finds the newest record of each shard, so that the proxy can hide everything up to it, like
//! retention.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::ShardIteratorType;

/// Returns the sequence number of the newest record of each shard that has one.
///
/// # Panics
/// If the emulator returns an error.
pub(super) async fn newest(kinesis: &Client, stream: &str) -> Vec<(String, String)> {
    let listed = kinesis.list_shards().stream_name(stream).send().await;
    let listed = listed.expect("the shards are listed");
    let mut newest = Vec::new();
    for shard in listed.shards() {
        let shard = shard.shard_id();
        if let Some(number) = newest_of(kinesis, stream, shard).await {
            newest.push((shard.to_owned(), number));
        }
    }
    newest
}

async fn newest_of(kinesis: &Client, stream: &str, shard: &str) -> Option<String> {
    let iterator = kinesis.get_shard_iterator().stream_name(stream);
    let iterator = iterator
        .shard_id(shard)
        .shard_iterator_type(ShardIteratorType::TrimHorizon);
    let iterator = iterator.send().await.expect("the shard has a beginning");
    let mut iterator = iterator.shard_iterator;
    let mut newest = None;
    while let Some(at) = iterator {
        let response = kinesis.get_records().shard_iterator(at).send().await;
        let response = response.expect("the records are read");
        let last = response.records.last();
        // An open shard has no end. The emulator returns all records that it has.
        iterator = last.and_then(|_| response.next_shard_iterator.clone());
        newest = last.map(|record| record.sequence_number.clone()).or(newest);
    }
    newest
}
