//! The process of a millstream member. Like the Java program, it reports events on its standard output and ends at the
//! command `stop`, or when its standard input is closed.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use conformance::kinesis::consumer_events::{Event, Record, TimedEvent};
use millstream_core::{Delivery, Result};
use millstream_kinesis::Config;
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::fixture::credentials;

/// The variable with the member's options as JSON. A process that has it is a member, not a test.
pub(crate) const VARIABLE: &str = "MILLSTREAM_TEST_MEMBER";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MemberConfig {
    pub(crate) config: Config,
    pub(crate) group: String,
    pub(crate) stream: String,
    pub(crate) member: String,
    /// How long a handler takes.
    pub(crate) takes: Duration,
    /// The last index in an aggregate that is handled. Handlers of later records never end.
    pub(crate) inside: Option<u64>,
}

pub(crate) fn run(member_config: &str) -> ExitCode {
    let member_config: MemberConfig = serde_json::from_str(member_config).expect("orders");
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    match runtime.expect("a runtime").block_on(consume(member_config)) {
        Ok(()) => {
            report(Event::Stopped { good: true });
            ExitCode::SUCCESS
        }
        Err(error) => {
            let why = format!("{error:?}");
            report(Event::Failed { why });
            ExitCode::FAILURE
        }
    }
}

async fn consume(member_config: MemberConfig) -> Result<()> {
    // Serializing the configuration leaves out secrets.
    let mut config = member_config.config;
    config.credentials = Some(credentials());
    let client = config.connect().await?;
    let group = client
        .group(member_config.group)
        .stream(member_config.stream);
    let group = group.member(member_config.member);
    let (takes, inside) = (member_config.takes, member_config.inside);
    let handle = move |delivery: Delivery| async move {
        if inside.is_some_and(|last| delivery.position().sub() > last) {
            std::future::pending::<()>().await;
        }
        report(Event::Record(record(&delivery)));
        tokio::time::sleep(takes).await;
        Ok::<_, io::Error>(())
    };
    report(Event::Started);
    group.run(handle, stop()).await
}

/// Waits for the command to stop, or for the end of the standard input, which closes when the test ends for any reason.
async fn stop() {
    let (reported, stop) = oneshot::channel();
    std::thread::spawn(move || {
        let order = io::stdin().lines().next();
        match order {
            Some(Ok(order)) if order == "stop" => drop(reported.send(())),
            Some(order) => panic!("unknown order: {order:?}"),
            None => std::process::exit(2),
        }
        // The test may still end while the member leaves.
        while io::stdin().lines().next().is_some() {}
        std::process::exit(2);
    });
    stop.await.expect("the thread reports");
}

fn record(delivery: &Delivery) -> Record {
    let position = delivery.position();
    let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect();
    Record {
        shard: delivery.partition().id().to_owned(),
        seq: position.with_sub_sequence(0).to_string(),
        sub: position.sub(),
        key: delivery
            .key()
            .map(|key| String::from_utf8_lossy(key).into_owned()),
        payload: text(delivery.payload()),
        aggregated: None,
        explicit_hash_key: None,
        epoch: Some(delivery.epoch().0),
    }
}

fn report(event: Event) {
    let line = serde_json::to_string(&TimedEvent::now(event)).expect("an event can be written");
    // Each line is one write, because several threads report.
    writeln!(io::stdout(), "{line}").expect("the test listens");
}
