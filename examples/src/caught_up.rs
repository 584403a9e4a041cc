use std::time::Duration;

use millstream::{ConsumerGroup, ErrorKind, Lag, shutdown_signal};

/// Waits until `group` has settled everything in its streams, or for SIGTERM or Ctrl-C: a
/// shutdown for programs that end by themselves.
///
/// Reads the stored checkpoints ten times a second. Prints an error and completes if they cannot be
/// read.
///
/// # Cancel safety
/// Cancel safe.
pub async fn caught_up(group: ConsumerGroup) {
    tokio::select! {
        () = shutdown_signal() => {}
        () = nothing_left(group) => {}
    }
}

async fn nothing_left(group: ConsumerGroup) {
    loop {
        match group.checkpoints().await {
            Ok(checkpoints) => {
                let nothing_left = checkpoints.iter().all(|checkpoint| {
                    // Not every backend can count records. The time may be zero for a new record.
                    let Lag { records, time } = checkpoint.lag;
                    records.map_or(time == Some(Duration::ZERO), |records| records == 0)
                });
                // Before the first member has joined there is nothing to read.
                if nothing_left && !checkpoints.is_empty() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                eprintln!("{error}");
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
