use std::time::Duration;

use millstream::{ConsumerGroup, ErrorKind};

/// Waits until `group` has settled everything that its streams hold: a shutdown for programs that shall end by themselves.
///
/// Asks for the stored checkpoints ten times a second. Ends also, with a word on standard error, when they cannot be read. Cancel safe.
pub async fn caught_up(group: ConsumerGroup) {
    loop {
        match group.checkpoints().await {
            Ok(checkpoints) => {
                let nothing_left = checkpoints.iter().all(|checkpoint| {
                    let lag = checkpoint.lag;
                    lag.records == Some(0) || lag.time == Some(Duration::ZERO)
                });
                if nothing_left {
                    return;
                }
            }
            // The first member is still joining.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                eprintln!("{error}");
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
