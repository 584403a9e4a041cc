//! Retries when a drain begins: one that is due in time is waited for, one that is not holds nothing up.

use std::time::Duration;

use millstream_core::Retry;
use tokio::time::Instant;

use crate::desk::{Desk, checkpoint, group};
use crate::fake::{Call, Script, until};

#[tokio::test(start_paused = true)]
async fn a_record_whose_next_attempt_comes_too_late_holds_up_no_shutdown() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.fail(0, 1);
    let (control, run) = desk.run(
        group(&script)
            .on_failure(Retry::fixed(Duration::from_secs(30)))
            .drain_timeout(Duration::from_secs(10)),
    );
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    until(|| control.stats().failures == 1).await;
    let asked = Instant::now();
    control.shutdown();
    run.await.unwrap().unwrap();
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_next_attempt_comes_too_late_holds_up_no_release() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.fail(1, 1);
    let (control, _run) =
        desk.run(group(&script).on_failure(Retry::fixed(Duration::from_secs(30))));
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    until(|| control.stats().failures == 1).await;
    let asked = Instant::now();
    script.revoke("0", 1, Duration::from_secs(10));
    script.until_called(Call::Release("0".into())).await;
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(
        script.steps(),
        [checkpoint("0", 0), Call::Release("0".into())]
    );
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_next_attempt_comes_in_time_is_waited_for() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.fail(0, 1);
    let (control, run) = desk.run(group(&script).on_failure(Retry::fixed(Duration::from_secs(5))));
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    until(|| control.stats().failures == 1).await;
    control.shutdown();
    run.await.unwrap().unwrap();
    assert_eq!(script.steps(), [checkpoint("0", 0), Call::Leave]);
}
