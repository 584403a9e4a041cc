//! The broker of the cases, without a proxy: faults of members are real here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use conformance::fleet::Fleet;
use conformance::history::{Event, Handling, History};
use conformance::{Fault, Harness, Hooks, Timing, unique_stream};
use millstream_core::{Client, driver};
use millstream_kafka::{Config, Protocol};

use crate::member_config::{MemberConfig, clock};
use crate::process::Process;

/// The session timeout of members.
pub(crate) const SESSION: Duration = Duration::from_secs(2);

/// The connection settings of the brokers, with one protocol. It does not affect the brokers: the cases do.
#[derive(Debug)]
pub(crate) struct Fixture {
    bootstrap: String,
    protocol: Protocol,
}

impl Fixture {
    pub(crate) fn new(bootstrap: String, protocol: Protocol) -> Arc<Self> {
        Arc::new(Self {
            bootstrap,
            protocol,
        })
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        config.brokers = self.bootstrap.split(',').map(str::to_owned).collect();
        config.consumer.protocol = self.protocol;
        config.consumer.session_timeout = SESSION;
        config.consumer.heartbeat_interval = Some(SESSION / 10);
        config
    }

    /// Creates a stream and a group that reads all of it.
    pub(crate) async fn fleet(self: &Arc<Self>, partitions: usize) -> Fleet {
        let stream = unique_stream(&**self, partitions).await;
        Fleet::on(self.clone(), stream, History::by(clock), true).await
    }

    /// The default configuration of a member.
    pub(crate) fn member_config(&self, fleet: &Fleet, member: &str) -> MemberConfig {
        MemberConfig {
            config: self.config(),
            group: fleet.group.clone(),
            stream: fleet.stream.clone(),
            member: member.to_owned(),
            takes: Duration::from_millis(3),
            sink: None,
            checkpoint_records: None,
        }
    }

    pub(crate) fn start(&self, fleet: &Fleet, member: &str) -> Process {
        Process::start(&self.member_config(fleet, member), &fleet.history)
    }
}

#[async_trait]
impl Harness for Fixture {
    async fn client(&self) -> Client {
        self.config().connect().await.expect("the brokers respond")
    }

    fn unique(&self, prefix: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        format!("{prefix}-{}", COUNT.fetch_add(1, Relaxed))
    }

    fn timing(&self) -> Timing {
        Timing {
            session: SESSION,
            handover: Duration::from_secs(1),
            timeout: Duration::from_secs(90),
            poll_interval: Duration::from_millis(20),
            timestamps: Duration::from_millis(1),
        }
    }

    fn limits(&self) -> driver::StreamLimits {
        unreachable!("no case of the suite runs here")
    }

    fn hooks(&self) -> Hooks {
        Hooks::default()
    }

    fn hits(&self, _: &str) -> u64 {
        0
    }

    async fn inject(&self, fault: Fault) {
        unreachable!("{fault:?} is none of the hooks")
    }
}

/// Returns the number of handlings that a member has begun.
pub(crate) fn begun(fleet: &Fleet, member: &str) -> usize {
    let history = &fleet.history;
    history.count(|event| matches!(event, Event::Began(handling) if *handling.by.member == *member))
}

/// Returns the last handling of each partition that was handled.
pub(crate) fn owners(fleet: &Fleet) -> Vec<Handling> {
    let mut last = std::collections::BTreeMap::new();
    fleet.history.each(|event| {
        if let Event::Began(handling) = event {
            last.insert(handling.by.partition.clone(), handling.clone());
        }
    });
    last.into_values().collect()
}

/// Waits until each of `members` handles records, and together they own all partitions.
pub(crate) async fn all_handling(fleet: &Fleet, members: &[&Process]) {
    let share = |member: &Process| {
        let owners = owners(fleet);
        owners.iter().any(|last| last.by.member == member.member)
    };
    fleet
        .until("each member has a share", || {
            members.iter().all(|member| share(member))
        })
        .await;
}
