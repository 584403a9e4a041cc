//! A pipeline stores its progress only in transactions.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Client, Delivery, Position, Record, StreamSpec};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::fixture::{Fixture, TIMEOUT, unique};

/// How long a commit is delayed.
const HELD: Duration = Duration::from_millis(500);

/// The start of the group is stored before it has members.
const AT_START: u64 = 1;

/// Longer than a member takes to notice that only a marker follows.
const IDLE: Duration = Duration::from_secs(1);

struct Pipeline {
    group: String,
    shutdown: oneshot::Sender<()>,
    running: JoinHandle<millstream_core::Result<()>>,
}

impl Pipeline {
    /// Starts to copy a stream.
    async fn start(client: &Client, from: &str, to: &str) -> Self {
        let group = unique("pipeline");
        let producer = client.producer(to).open().await.expect("it opens");
        let (shutdown, ended) = oneshot::channel();
        let copying = client.group(group.as_str()).stream(from).transform_to(
            &producer,
            |delivery: Delivery| async move { Ok::<_, std::io::Error>(Some(delivery.to_record())) },
            async {
                // A failed test ends it too.
                let _ = ended.await;
            },
        );
        let running = tokio::spawn(async move { copying.await.map(drop) });
        Self {
            group,
            shutdown,
            running,
        }
    }

    async fn close(self) {
        self.shutdown.send(()).expect("it runs");
        let ended = self.running.await.expect("it does not panic");
        ended.expect("it ends in good order");
    }

    async fn position(&self, client: &Client) -> Option<Position> {
        let checkpoints = client.group(&self.group).checkpoints().await.ok()?;
        checkpoints[0].position
    }

    async fn settles(&self, client: &Client, position: u64) {
        let deadline = Instant::now() + TIMEOUT;
        while self.position(client).await < Some(Position::from(position)) {
            assert!(
                Instant::now() < deadline,
                "the pipeline settles {position}, and is at {:?}",
                self.position(client).await
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn one_partition(client: &Client) -> String {
    let name = unique("stream");
    let spec = StreamSpec::new(name.as_str()).partitions(1);
    client.streams().create(spec).await.expect("it is new");
    name
}

async fn send(client: &Client, stream: &str) {
    let producer = client.producer(stream).open().await.expect("it opens");
    let record = Record::new("a").key("k");
    drop(producer.send(record).await.expect("there is room"));
    producer.close().await.expect("it is stored");
}

/// After the last record of the input is a marker of its transaction. A plain commit that passes it could arrive
/// late and undo a later step.
pub(crate) async fn commits_in_transactions_alone(fixture: Arc<Fixture>) {
    let client = fixture.client().await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(one_partition(&client).await);
    }
    let first = Pipeline::start(&client, &streams[0], &streams[1]).await;
    let second = Pipeline::start(&client, &streams[1], &streams[2]).await;
    let faults = fixture.testbed.faults();
    faults.hold_commits(&second.group, HELD, u32::MAX);
    for last in [0, 2] {
        send(&client, &streams[0]).await;
        second.settles(&client, last).await;
        let begun = Instant::now();
        while begun.elapsed() < IDLE {
            assert_eq!(
                faults.hits(&second.group),
                AT_START,
                "it commits beside its transactions"
            );
            assert!(second.position(&client).await >= Some(Position::from(last)));
        }
    }
    first.close().await;
    second.close().await;
}
