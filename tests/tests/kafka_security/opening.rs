//! Clients are opened off the runtime's threads: each reads the CA certificates again, and a disk may be slow.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use millstream_core::{Record, Start, StreamSpec};
use millstream_kafka::Sasl;
use tokio::sync::oneshot;

use crate::secured::Secured;

/// How long the runtime may take to respond, on a busy machine too.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A file whose reads can be slowed down.
#[derive(Clone)]
struct SlowFile {
    path: PathBuf,
    content: String,
}

impl SlowFile {
    /// Writes the file, for later readers.
    fn write(&self) {
        let new = self.path.with_extension("new");
        fs::write(&new, &self.content).unwrap();
        fs::rename(&new, &self.path).unwrap();
    }

    /// Makes a call whose first client gets the content only after the runtime has responded.
    async fn check<T>(&self, what: &str, call: impl Future<Output = T>) -> T {
        let (ask, asked) = oneshot::channel();
        let serving = self.serve_slowly(move || {
            let (reply, replied) = channel();
            // There is no response if the call is already over, and has read nothing.
            ask.send(reply).is_ok() && replied.recv_timeout(TIMEOUT).is_ok()
        });
        let responding = tokio::spawn(async move {
            let reply = asked.await.unwrap();
            // It may be too late.
            let _ = reply.send(());
        });
        let returned = call.await;
        assert!(serving.is_finished(), "{what} opens no client");
        assert!(serving.join().unwrap(), "{what} blocks the runtime");
        responding.await.unwrap();
        returned
    }

    /// Makes the next reader wait until `wait` returns. Returns the result of `wait`.
    fn serve_slowly(&self, wait: impl FnOnce() -> bool + Send + 'static) -> JoinHandle<bool> {
        let pipe = self.path.with_extension("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        fs::rename(&pipe, &self.path).unwrap();
        let file = self.clone();
        thread::spawn(move || {
            // Opening the pipe waits for the reader.
            let pipe = OpenOptions::new().write(true).open(&file.path);
            file.write();
            let waited = wait();
            pipe.unwrap().write_all(file.content.as_bytes()).unwrap();
            waited
        })
    }
}

#[tokio::test]
async fn no_client_is_opened_on_a_thread_of_the_runtime() {
    let secured = Secured::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = SlowFile {
        path: folder.path().join("ca.pem"),
        content: secured.authority.pem().to_owned(),
    };
    file.write();
    let mut config = secured.login(Sasl::Plain, "admin");
    let tls = config.security.tls.as_mut().unwrap();
    (tls.ca_pem, tls.ca_file) = (None, Some(file.path.clone()));
    let client = config.connect().await.unwrap();

    let streams = client.streams();
    let create = streams.create(StreamSpec::new("s").partitions(1));
    file.check("create", create).await.unwrap();
    let open = client.producer("s").open();
    let producer = file.check("open", open).await.unwrap();
    let sent = producer.send(Record::new("1")).await.unwrap();
    sent.await.unwrap();
    let group = client.group("g").stream("s").start(Start::Earliest);
    let first = file.check("join", group.join()).await.unwrap();
    // The client for the group's requests is open now.
    let mut second = file.check("a second join", group.join()).await.unwrap();
    first.close().await.unwrap();
    second.next().await.unwrap().unwrap().ack();
    second.close().await.unwrap();
    let checkpoints = file.check("checkpoints", group.checkpoints()).await;
    checkpoints.unwrap();
    let reset = file.check("reset", group.reset("s", Start::Latest)).await;
    reset.unwrap();
    producer.close().await.unwrap();
}
