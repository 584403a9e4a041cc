//! The log lines of failed requests.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use millstream_core::ErrorKind;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt;

use super::fake::{Fake, Script};
use super::{BOTH, call, config, kinds, record, start};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_holds_the_name_and_the_whole_chain_of_causes() {
    // With only one subscriber, `tracing` asks the first thread at an event whether the event is
    // enabled, and that may be the thread of another test.
    let _other = fmt().with_writer(io::sink).set_default();
    for aggregation in BOTH {
        let log = Log::default();
        let lines = log.clone();
        let lines = fmt()
            .with_env_filter("millstream::kinesis=debug")
            .with_writer(move || lines.clone());
        let _listening = lines.set_default();
        let fake = Fake::new(1, 1);
        fake.world()
            .script
            .push_back(Script::Refuse(ErrorKind::Unavailable));
        let producer = start(&fake, config(aggregation));
        let sent = call(&producer, vec![record("k", 1)]).await;
        assert_eq!(kinds(&sent.await), [None]);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let named = |line: &&str| line.contains("event=\"millstream.kinesis.producer.retried\"");
        let line = text.lines().find(named).unwrap_or_else(|| panic!("{text}"));
        assert!(
            line.contains("error=send failed (unavailable): as told: reset by peer"),
            "{line}"
        );
    }
}
