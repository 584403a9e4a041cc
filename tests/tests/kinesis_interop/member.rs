//! A member of either side.

use std::time::Duration;

use conformance::kinesis::java::Worker;

use crate::fixture::{Fixture, SESSION};
use crate::process::Process;
use crate::program::MemberConfig;

/// How long a handler takes. A handler that takes no time would hide what happens while it runs.
const TAKES: Duration = Duration::from_millis(1);

/// The library that a member runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Java,
    Rust,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Java => Self::Rust,
            Self::Rust => Self::Java,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    program: Program,
}

#[derive(Debug)]
enum Program {
    Java(Box<Worker>),
    Rust(Box<Process>),
}

impl Member {
    pub(crate) async fn start(fixture: &Fixture, side: Side, name: &str) -> Self {
        match side {
            Side::Java => Self::java(fixture, name, &[]).await,
            Side::Rust => Self::rust(fixture, name, None),
        }
    }

    /// Starts a member that handles an aggregate up to index `inside`, checkpoints that, and handles no more.
    pub(crate) async fn inside(fixture: &Fixture, side: Side, name: &str, inside: u64) -> Self {
        match side {
            Side::Java => Self::java(fixture, name, &[("inside", &inside.to_string())]).await,
            Side::Rust => Self::rust(fixture, name, Some(inside)),
        }
    }

    /// Starts a Java member with additional options.
    pub(crate) async fn java(fixture: &Fixture, name: &str, more: &[(&str, &str)]) -> Self {
        let failover = SESSION.as_millis().to_string();
        let slow = TAKES.as_millis().to_string();
        let (kinesis, dynamodb) = (
            fixture.testbed.kinesis_endpoint(),
            fixture.testbed.dynamodb_endpoint(),
        );
        let mut options = vec![
            ("kinesis", &*kinesis),
            ("dynamodb", &*dynamodb),
            ("stream", &*fixture.name),
            ("application", &*fixture.name),
            ("worker", name),
            ("failover", &*failover),
            ("slow", &*slow),
        ];
        options.extend(more);
        let worker = Worker::start(fixture.library, &options, fixture.log.of(name)).await;
        Self {
            name: name.to_owned(),
            program: Program::Java(Box::new(worker)),
        }
    }

    fn rust(fixture: &Fixture, name: &str, inside: Option<u64>) -> Self {
        let member_config = MemberConfig {
            config: fixture.config(),
            group: fixture.name.clone(),
            stream: fixture.name.clone(),
            member: name.to_owned(),
            takes: TAKES,
            inside,
        };
        let process = Process::start(&member_config, fixture.log.of(name));
        Self {
            name: name.to_owned(),
            program: Program::Rust(Box::new(process)),
        }
    }

    /// Shuts it down cleanly, and waits until it has ended.
    pub(crate) async fn stop(self) {
        match self.program {
            Program::Java(worker) => worker.stop().await,
            Program::Rust(process) => process.stop().await,
        }
    }

    pub(crate) async fn kill(self) {
        match self.program {
            Program::Java(worker) => worker.kill().await,
            Program::Rust(process) => process.kill().await,
        }
    }

    pub(crate) async fn freeze(&self) {
        match &self.program {
            Program::Java(worker) => worker.freeze().await,
            Program::Rust(process) => process.freeze(),
        }
    }

    pub(crate) async fn thaw(&self) {
        match &self.program {
            Program::Java(worker) => worker.thaw().await,
            Program::Rust(process) => process.thaw(),
        }
    }
}
