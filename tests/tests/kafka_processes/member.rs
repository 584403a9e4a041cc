//! The child process of a member. It reports events line by line on its standard output until it is
//! stopped or killed.

use std::io::{self, Read};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use conformance::fleet::MemberSpec;
use conformance::history::{History, Observer, Outcome};
use millstream_core::{Client, ConsumerGroup, Delivery, Result};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::member_config::{MemberConfig, clock};

/// The interval at which it checks whether its member has ended by itself.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

pub(crate) fn run(member_config: &str) -> ExitCode {
    die_with_parent();
    let member_config: MemberConfig = serde_json::from_str(member_config).expect("orders");
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    let result = runtime.expect("a runtime").block_on(async {
        let history = History::journal(clock, io::stdout());
        match &member_config.sink {
            Some(sink) => pipeline(&member_config, sink, &history).await,
            None => handle(&member_config, &history).await,
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", member_config.member);
            ExitCode::FAILURE
        }
    }
}

/// The end of the parent, whatever its reason, also closes its end of this process's standard input.
fn die_with_parent() {
    std::thread::spawn(|| {
        // Nothing is ever sent.
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(2);
    });
}

async fn connect(member_config: &MemberConfig) -> Client {
    let client = member_config.config.clone().connect().await;
    client.expect("the broker responds")
}

fn group(member_config: &MemberConfig, client: &Client) -> ConsumerGroup {
    let group = client.group(member_config.group.as_str());
    let group = group.stream(member_config.stream.as_str());
    match member_config.checkpoint_records {
        Some(records) => group.checkpoint_records(records),
        None => group,
    }
}

async fn asked_to_end() {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be handled");
    terminate.recv().await;
}

async fn handle(member_config: &MemberConfig, history: &History) -> Result<()> {
    let group = async { group(member_config, &connect(member_config).await) };
    let member =
        MemberSpec::new(group, history, &member_config.member).handler_delay(member_config.takes);
    let member = member.start().await;
    let mut asked = pin!(asked_to_end());
    while !member.has_ended() && timeout(POLL_INTERVAL, &mut asked).await.is_err() {}
    // It reports that as well if the member had to end before.
    member.shut_down().await.1
}

async fn pipeline(member_config: &MemberConfig, sink: &str, history: &History) -> Result<()> {
    let client = connect(member_config).await;
    let group = group(member_config, &client).member(member_config.member.as_str());
    let producer = client.producer(sink).open().await?;
    let observer = Observer::new(history, &member_config.group, &member_config.member);
    let (watching, takes) = (observer.clone(), member_config.takes);
    let pass_on = move |delivery: Delivery| {
        let open = watching.begin(&delivery);
        async move {
            tokio::time::sleep(takes).await;
            open.end(Outcome::Acked);
            Ok::<_, io::Error>([delivery.to_record()])
        }
    };
    group
        .transform_to(&producer, pass_on, asked_to_end())
        .await?;
    producer.close().await?;
    observer.left();
    Ok(())
}
