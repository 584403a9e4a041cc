//! A member of either side.

use std::time::Duration;

use conformance::kinesis::java::Worker;

use crate::ground::{Ground, SESSION};
use crate::process::Process;
use crate::program::Orders;

/// How long a handling takes: a handler that takes no time hides what happens while it runs.
const TAKES: Duration = Duration::from_millis(1);

/// Which side.
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
    pub(crate) async fn start(ground: &Ground, side: Side, name: &str) -> Self {
        match side {
            Side::Java => Self::java(ground, name, &[]).await,
            Side::Rust => Self::rust(ground, name, None),
        }
    }

    /// One that handles an aggregate as far as its place `inside`, stores that, and goes no further.
    pub(crate) async fn inside(ground: &Ground, side: Side, name: &str, inside: u64) -> Self {
        match side {
            Side::Java => Self::java(ground, name, &[("inside", &inside.to_string())]).await,
            Side::Rust => Self::rust(ground, name, Some(inside)),
        }
    }

    /// One of Java's, with more options.
    pub(crate) async fn java(ground: &Ground, name: &str, more: &[(&str, &str)]) -> Self {
        let failover = SESSION.as_millis().to_string();
        let slow = TAKES.as_millis().to_string();
        let (kinesis, dynamodb) = (
            ground.site.kinesis_endpoint(),
            ground.site.dynamodb_endpoint(),
        );
        let mut options = vec![
            ("kinesis", &*kinesis),
            ("dynamodb", &*dynamodb),
            ("stream", &*ground.name),
            ("application", &*ground.name),
            ("worker", name),
            ("failover", &*failover),
            ("slow", &*slow),
        ];
        options.extend(more);
        let worker = Worker::start(ground.library, &options, ground.log.of(name)).await;
        Self {
            name: name.to_owned(),
            program: Program::Java(Box::new(worker)),
        }
    }

    fn rust(ground: &Ground, name: &str, inside: Option<u64>) -> Self {
        let orders = Orders {
            config: ground.config(),
            group: ground.name.clone(),
            stream: ground.name.clone(),
            member: name.to_owned(),
            takes: TAKES,
            inside,
        };
        let process = Process::start(&orders, ground.log.of(name));
        Self {
            name: name.to_owned(),
            program: Program::Rust(Box::new(process)),
        }
    }

    /// Has it end in good order, and waits until it has.
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
