//! The configuration of a member in another process.

use std::time::Duration;

use millstream_kafka::Config;
use serde::{Deserialize, Serialize};

/// The variable that contains the configuration as JSON. A process with it is a member, not a test.
pub(crate) const VARIABLE: &str = "MILLSTREAM_TEST_MEMBER";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MemberConfig {
    pub(crate) config: Config,
    pub(crate) group: String,
    pub(crate) stream: String,
    pub(crate) member: String,
    /// How long a handling takes.
    pub(crate) takes: Duration,
    /// The stream to which a pipeline publishes; `None` for a member whose handlers only take time.
    pub(crate) sink: Option<String>,
    /// The number of settled records after which the checkpoint is stored; `None` for the default.
    pub(crate) checkpoint_records: Option<u64>,
}

/// Returns nanoseconds since the machine's start: the same in all its processes.
pub(crate) fn clock() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let since = Duration::try_from(now).expect("time is not before the start");
    u64::try_from(since.as_nanos()).expect("not for 584 years")
}
