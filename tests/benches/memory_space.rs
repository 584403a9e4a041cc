//! The bytes that one more idle partition costs a process: in the backend, which stores it, and in the
//! member that owns it.

use std::error::Error;

use allocation_counter::{AllocationInfo, measure};
use millstream_core::{Client, StreamSpec};

const FEW: usize = 100;
const MANY: usize = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let (few_stored, few_owned) = bytes(FEW)?;
    let (many_stored, many_owned) = bytes(MANY)?;
    let each = |few: i64, many: i64| (many - few) / (MANY - FEW) as i64;
    println!(
        "memory_idle_partition_stored {} bytes",
        each(few_stored, many_stored)
    );
    println!(
        "memory_idle_partition_owned {} bytes",
        each(few_owned, many_owned)
    );
    Ok(())
}

/// Returns the cost of an empty stream with this many partitions, and the additional cost of a member that owns all of
/// them.
fn bytes(partitions: usize) -> Result<(i64, i64), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let mut client = None;
    let stored = kept(|| client = Some(runtime.block_on(stream(partitions))));
    let client = client.ok_or("no client")??;
    let mut member = None;
    let owned = kept(|| member = Some(runtime.block_on(join(&client, partitions))));
    let member = member.ok_or("no member")??;
    runtime.block_on(member.close())?;
    Ok((stored, owned))
}

fn kept(run: impl FnOnce()) -> i64 {
    let AllocationInfo { bytes_current, .. } = measure(run);
    bytes_current
}

async fn stream(partitions: usize) -> millstream_core::Result<Client> {
    let client = millstream_memory::Config::default().connect().await?;
    client
        .streams()
        .create(StreamSpec::new("bench").partitions(partitions))
        .await?;
    Ok(client)
}

async fn join(
    client: &Client,
    partitions: usize,
) -> millstream_core::Result<millstream_core::Consumer> {
    let mut member = client.group("bench").stream("bench").join().await?;
    let control = member.handle();
    tokio::select! {
        delivery = member.next() => unreachable!("the stream is empty, but there came {delivery:?}"),
        () = async { while control.partitions().len() < partitions { tokio::task::yield_now().await } } => {}
    }
    Ok(member)
}
