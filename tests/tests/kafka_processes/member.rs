//! The process of a member: it does what it is ordered, and tells what happens, line by line on its
//! standard output, until it is asked to end or is killed.

use std::io::{self, Read};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use conformance::fleet::Spec;
use conformance::history::{History, Observer, Outcome};
use millstream_core::{Client, ConsumerGroup, Delivery, Result};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::orders::{Orders, clock};

/// How often it looks whether its member has ended by itself.
const TICK: Duration = Duration::from_millis(20);

pub(crate) fn run(orders: &str) -> ExitCode {
    die_with_the_parent();
    let orders: Orders = serde_json::from_str(orders).expect("orders");
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    let result = runtime.expect("a runtime").block_on(async {
        let history = History::journal(clock, io::stdout());
        match &orders.sink {
            Some(sink) => chain(&orders, sink, &history).await,
            None => handle(&orders, &history).await,
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", orders.member);
            ExitCode::FAILURE
        }
    }
}

/// Whatever ends the parent also closes its end of this process's standard input.
fn die_with_the_parent() {
    std::thread::spawn(|| {
        // Nothing is ever sent.
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(2);
    });
}

async fn connect(orders: &Orders) -> Client {
    let client = orders.config.clone().connect().await;
    client.expect("the broker answers")
}

fn group(orders: &Orders, client: &Client) -> ConsumerGroup {
    let group = client.group(orders.group.as_str());
    let group = group.stream(orders.stream.as_str());
    match orders.checkpoint_records {
        Some(records) => group.checkpoint_records(records),
        None => group,
    }
}

async fn asked_to_end() {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be heard");
    terminate.recv().await;
}

async fn handle(orders: &Orders, history: &History) -> Result<()> {
    let group = async { group(orders, &connect(orders).await) };
    let member = Spec::new(group, history, &orders.member).takes(orders.takes);
    let member = member.start().await;
    let mut asked = pin!(asked_to_end());
    while !member.has_ended() && timeout(TICK, &mut asked).await.is_err() {}
    // It tells so too if the member had to end before.
    member.shut_down().await.1
}

async fn chain(orders: &Orders, sink: &str, history: &History) -> Result<()> {
    let client = connect(orders).await;
    let group = group(orders, &client).member(orders.member.as_str());
    let producer = client.producer(sink).open().await?;
    let observer = Observer::new(history, &orders.group, &orders.member);
    let (watching, takes) = (observer.clone(), orders.takes);
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
