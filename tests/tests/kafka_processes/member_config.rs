//! The configuration of a member in another process.

use std::time::Duration;

use millstream_kafka::Config;
use serde::{Deserialize, Serialize};

/// The variable that has them, as JSON. A process that has it is a member, and no test.
pub(crate) const VARIABLE: &str = "MILLSTREAM_TEST_MEMBER";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MemberConfig {
    pub(crate) config: Config,
    pub(crate) group: String,
    pub(crate) stream: String,
    pub(crate) member: String,
    /// How long a handling takes.
    pub(crate) takes: Duration,
    /// Where a pipeline publishes; none for a member whose handlers only take their time.
    pub(crate) sink: Option<String>,
    /// After how many settled records the checkpoint is stored; none for the default.
    pub(crate) checkpoint_records: Option<u64>,
}

/// Nanoseconds since the machine's start: the same in all its processes.
pub(crate) fn clock() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let since = Duration::try_from(now).expect("time is not before the start");
    u64::try_from(since.as_nanos()).expect("not for 584 years")
}
