//! The log lines of failed requests.

use millstream_core::ErrorKind;

use super::fake::{Fake, Script};
use super::{BOTH, call, config, kinds, record, start};
use crate::log_lines::LogLines;

#[tokio::test(start_paused = true)]
async fn a_line_holds_the_name_and_the_whole_chain_of_causes() {
    for aggregation in BOTH {
        let log = LogLines::record();
        let fake = Fake::new(1, 1);
        fake.world()
            .script
            .push_back(Script::Refuse(ErrorKind::Unavailable));
        let producer = start(&fake, config(aggregation));
        let sent = call(&producer, vec![record("k", 1)]).await;
        assert_eq!(kinds(&sent.await), [None]);
        let lines = log.of("millstream.kinesis.producer.retried");
        assert!(
            lines[0].contains("error=send failed (unavailable): as scripted: reset by peer"),
            "{lines:?}"
        );
    }
}
