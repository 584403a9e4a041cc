//! A cluster that does not respond for longer than any timeout, and then responds again.

use std::time::Duration;

use conformance::Timing;
use conformance::eventually;
use millstream_core::ErrorKind;

use crate::{config, connect};

/// The late response to an abandoned request has no effect.
#[tokio::test]
async fn a_question_about_a_group_may_be_answered_too_late() {
    let broker = conformance::kafka::Options::new().start().await;
    let mut settings = config(&broker.bootstrap());
    settings.request_timeout = Duration::from_secs(2);
    let client = connect(settings).await;
    for round in 0..3 {
        let group = client.group(format!("group-{round}"));
        broker.pause().await;
        let silent = group.checkpoints().await;
        let silent = silent.expect_err("nobody responds");
        assert!(silent.is_retryable(), "{silent}");
        broker.unpause().await;
        let timing = Timing {
            session: Duration::from_secs(2),
            handover: Duration::from_secs(1),
            timeout: Duration::from_secs(60),
            poll_interval: Duration::from_millis(100),
            timestamps: Duration::from_millis(1),
        };
        eventually(timing, "the broker responds again", || async {
            let result = group.checkpoints().await;
            let unknown = result.expect_err("there is no such group").kind();
            (unknown == ErrorKind::NotFound).then_some(())
        })
        .await;
        // No response shows that librdkafka has completed its late work.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}
