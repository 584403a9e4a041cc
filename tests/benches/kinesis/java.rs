//! A member on the Kinesis Client Library, which checkpoints every second like millstream's.

use std::time::Duration;

use conformance::kinesis::java;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::job::{Library, Target};

const CHECKPOINT: Duration = Duration::from_secs(1);

pub(crate) struct Worker {
    kill: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Worker {
    pub(crate) async fn start(
        by: Library,
        target: &Target,
        failover: Duration,
        number: usize,
    ) -> Self {
        let library = match by {
            Library::Kcl3 => java::Library::Kcl3,
            _ => java::Library::Kcl2,
        };
        let (failover, name) = (failover.as_millis().to_string(), format!("worker-{number}"));
        let options = [
            ("kinesis", &*target.kinesis_itself),
            ("dynamodb", &*target.dynamodb),
            ("stream", &*target.stream),
            ("application", &*target.group),
            ("worker", &*name),
            ("failover", &*failover),
            ("checkpoint", "order"),
        ];
        let worker = java::Worker::start(library, &options, |_| {}).await;
        let (kill, killed) = oneshot::channel();
        Self {
            kill,
            running: tokio::spawn(run(worker, killed)),
        }
    }

    pub(crate) async fn kill(self) {
        // The receiver is gone only if it has panicked, which the next line reports.
        let _ = self.kill.send(());
        self.running.await.expect("the worker takes orders");
    }
}

async fn run(mut worker: java::Worker, mut killed: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            _ = &mut killed => return worker.kill().await,
            () = tokio::time::sleep(CHECKPOINT) => worker.checkpoint().await,
        }
    }
}
