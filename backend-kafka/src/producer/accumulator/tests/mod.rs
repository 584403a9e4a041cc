//! Random interleavings of calls, delivery reports, timeouts, client failures and client replacements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use millstream_core::{Error, ErrorKind, Record};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use self::simulated_client::{Log, PARTITIONS, Response, SimulatedClient, TIMEOUT, partition_of};
use super::*;
use crate::native::delivery::Answer;
use crate::producer::batch_limit::BatchLimit;

mod simulated_client;

const LIMIT: BatchLimit = BatchLimit {
    batch: 1_000,
    record: 1_000,
};
const REQUEST: RequestLimit = RequestLimit {
    records: 3,
    bytes: 1_000,
};
/// Most records have this key.
const HOT_KEY: [u8; 1] = [0];
const LINGER: Duration = Duration::from_millis(5);

#[derive(Debug, Clone)]
enum Step {
    /// A call with one record for each key.
    Send(Vec<Option<u8>>),
    Transmit {
        partition: usize,
        records: usize,
    },
    Respond(usize, Response),
    /// Serves the reports that have arrived, and sends the records that may then be sent.
    Drain,
    Advance(Duration),
    /// librdkafka refuses the next record at once.
    RefuseRecord,
    FailClient,
    MissTopic,
    EndClient {
        responses: usize,
        lands: bool,
    },
    OpenClient,
}

fn step() -> impl Strategy<Value = Step> {
    let partition = prop_oneof![2 => Just(partition_of(&HOT_KEY)), 1 => 0..PARTITIONS.get()];
    let key = prop_oneof![2 => Just(HOT_KEY[0]), 1 => 0..6_u8];
    let response = prop_oneof![
        6 => Just(Response::Stored),
        1 => (0..4_usize, any::<bool>()).prop_map(|(record, next_is_stored)| {
            Response::Rejected { record, next_is_stored }
        }),
        1 => Just(Response::TooLarge),
    ];
    prop_oneof![
        6 => vec(option::weighted(0.9, key), 1..6).prop_map(Step::Send),
        8 => (partition.clone(), 1..4_usize)
            .prop_map(|(partition, records)| Step::Transmit { partition, records }),
        8 => (partition, response).prop_map(|(partition, response)| Step::Respond(partition, response)),
        6 => Just(Step::Drain),
        3 => (0..5_u64).prop_map(|ms| Step::Advance(Duration::from_millis(ms))),
        2 => (0..20_u64).prop_map(|ms| Step::Advance(Duration::from_millis(ms))),
        1 => (100..400_u64).prop_map(|ms| Step::Advance(Duration::from_millis(ms))),
        1 => Just(Step::RefuseRecord),
        1 => Just(Step::FailClient),
        1 => Just(Step::MissTopic),
        3 => (0..3_usize, any::<bool>())
            .prop_map(|(responses, lands)| Step::EndClient { responses, lands }),
        3 => Just(Step::OpenClient),
    ]
}

/// A producer without threads.
struct Simulation {
    now: Instant,
    accumulator: Accumulator,
    client: Option<SimulatedClient>,
    calls: Vec<Arc<Batch>>,
    log: Log,
}

impl Simulation {
    /// Creates a simulation. `partitions` is the number of partitions that are known at first.
    fn new(partitions: usize) -> Self {
        let now = Instant::now();
        let throttle = InFlightThrottle::new(REQUEST, LINGER, partitions);
        Self {
            now,
            accumulator: Accumulator::new(throttle, now),
            client: None,
            calls: Vec::new(),
            log: Log::default(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Send(keys) => self.send(&keys),
            Step::Drain => self.drain(),
            Step::Advance(time) => self.advance(time),
            Step::EndClient { responses, lands } => self.end_failed_client(responses, lands),
            Step::OpenClient => self.open_client(),
            Step::Transmit { partition, records } => {
                if let Some(client) = &mut self.client {
                    client.transmit(partition, records);
                }
            }
            Step::Respond(partition, response) => {
                if let Some(client) = &mut self.client {
                    client.respond(partition, response, &mut self.log);
                }
            }
            Step::RefuseRecord => {
                if let Some(client) = &mut self.client {
                    client.refuses_next = true;
                }
            }
            Step::FailClient => {
                if let Some(client) = &mut self.client {
                    client.has_failed = true;
                }
            }
            Step::MissTopic => {
                if let Some(client) = &mut self.client {
                    client.miss_topic();
                }
            }
        }
    }

    fn send(&mut self, keys: &[Option<u8>]) {
        let record = |key: &Option<u8>| match key {
            Some(key) => Record::new("").key(vec![*key]),
            None => Record::new(""),
        };
        let records = keys.iter().map(record).collect();
        let batch = Arc::new(Batch::new(records, self.now + TIMEOUT, |_| Ok(())));
        self.calls.push(batch.clone());
        if let Appended::Send(indexes) = self.accumulator.append(&batch, self.now) {
            self.produce(&batch, &indexes);
        }
    }

    fn produce(&mut self, batch: &Arc<Batch>, indexes: &[usize]) {
        let client = self.client.as_mut().expect("a client is attached");
        client.produce(
            &mut self.accumulator,
            batch,
            indexes,
            self.now,
            &mut self.log,
        );
    }

    fn drain(&mut self) {
        let Some(client) = &mut self.client else {
            return;
        };
        self.accumulator.on_returned(&mut client.reports, self.now);
        self.accumulator.on_reports(&mut client.reports, self.now);
        for BatchSlice { batch, indexes, .. } in self.accumulator.drain(self.now) {
            assert!(batch.deadline > self.now, "a record is sent too late");
            self.produce(&batch, &indexes);
        }
    }

    fn advance(&mut self, time: Duration) {
        self.now += time;
        if let Some(client) = &mut self.client {
            client.time_out(self.now);
        }
    }

    fn open_client(&mut self) {
        if self.client.is_some() {
            return;
        }
        self.client = Some(SimulatedClient::new());
        for batch in self.accumulator.attach_client() {
            let indexes = self.accumulator.admit(&batch, self.now);
            self.produce(&batch, &indexes);
        }
    }

    fn end_failed_client(&mut self, responses: usize, lands: bool) {
        if let Some(client) = self.client.take_if(|client| client.has_failed) {
            let taken = client.taken.clone();
            self.end(client, None, responses, lands);
            let timeout = || error(ErrorKind::Timeout);
            self.accumulator.fail_unsendable(self.now, timeout);
            for call in taken.iter().map(|turn| &self.calls[*turn as usize - 1]) {
                assert!(
                    call.is_answered() || call.deadline > self.now,
                    "an overdue call is kept"
                );
            }
        }
    }

    fn end(
        &mut self,
        mut client: SimulatedClient,
        rejection: Option<&Error>,
        responses: usize,
        lands: bool,
    ) {
        self.accumulator.detach_client();
        client.purge(rejection, responses, lands, &mut self.log);
        if client.reports.needs_smaller_batches() {
            let records = 1;
            self.accumulator
                .set_request_limit(RequestLimit { records, ..REQUEST });
        }
        self.accumulator.on_client_ended(client.reports, self.now);
    }

    fn close(&mut self) {
        let closed = error(ErrorKind::Closed);
        if let Some(client) = self.client.take() {
            self.end(client, Some(&closed), 0, false);
        }
        self.accumulator.fail_queued(&closed);
    }

    /// Fails the accumulator, and then drains the client as far as librdkafka still has records.
    fn fail(&mut self) {
        self.accumulator.fail(error(ErrorKind::Unavailable));
        for call in &self.calls {
            assert!(call.answered().now_or_never().is_some());
        }
        if let Some(client) = self.client.take() {
            client.release();
        }
    }

    /// Lets the broker store all records that can still be stored.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.end_failed_client(2, false);
            self.open_client();
            for partition in 0..PARTITIONS.get() {
                self.take(Step::Transmit {
                    partition,
                    records: 3,
                });
                self.take(Step::Respond(partition, Response::Stored));
            }
            self.drain();
            if self.calls.iter().all(|call| call.is_answered()) {
                return;
            }
        }
        panic!("records have no result");
    }

    /// Checks the results of callers against the broker's log.
    fn check_results(&self) {
        let mut stored = BTreeSet::new();
        for record in self.log.partitions.iter().flatten() {
            assert!(stored.insert(*record), "{record:?} is stored twice");
        }
        for call in &self.calls {
            assert!(call.answered().now_or_never().is_some());
            assert_eq!(Arc::strong_count(call), 1, "a batch is kept");
            for (index, (_, answer)) in call.answers().enumerate() {
                let is_stored = stored.contains(&(call.turn(), index));
                match answer {
                    Answer::Reported(Report::Stored { partition, offset }) => {
                        let log = &self.log.partitions[partition as usize];
                        assert_eq!(log[offset as usize], (call.turn(), index));
                    }
                    Answer::Reported(Report::Failed {
                        maybe_stored: true, ..
                    }) => {}
                    failed => assert!(!is_stored, "{failed:?}"),
                }
            }
        }
    }

    fn check_order(&self) {
        for log in &self.log.partitions {
            let mut last = BTreeMap::new();
            for &(turn, index) in log {
                let Some(key) = &self.calls[turn as usize - 1].record(index).key else {
                    continue;
                };
                let before = last.insert(key, (turn, index));
                assert!(before < Some((turn, index)), "{key:?}: {log:?}");
            }
        }
    }

    fn check_partition_order(&self) {
        for log in &self.log.partitions {
            let has_key = |(turn, index): &&(u64, usize)| {
                self.calls[*turn as usize - 1].record(*index).key.is_some()
            };
            let keyed = log.iter().filter(has_key);
            assert!(keyed.is_sorted(), "{log:?}");
        }
    }

    /// Checks that no record of a call is stored behind a failed one of its key.
    fn check_calls(&self) {
        for call in &self.calls {
            let mut failed = BTreeSet::new();
            for (record, answer) in call.answers() {
                let Some(key) = &record.key else {
                    continue;
                };
                match answer {
                    Answer::Reported(Report::Stored { .. }) => {
                        assert!(!failed.contains(key), "{key:?} of call {}", call.turn());
                    }
                    _ => _ = failed.insert(key),
                }
            }
        }
    }
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "send", "simulated")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn records_are_stored_once_and_in_order(
        known in 1..=PARTITIONS.get(),
        steps in vec(step(), 0..80),
    ) {
        let mut simulation = Simulation::new(known);
        for step in steps {
            simulation.take(step);
        }
        simulation.settle();
        simulation.check_results();
        simulation.check_order();
        // Otherwise the records of a call may have different deadlines.
        if known == PARTITIONS.get() && !simulation.log.has_gaps {
            simulation.check_calls();
            simulation.check_partition_order();
        }
        prop_assert_eq!(simulation.accumulator.records_in_flight(), 0);
        prop_assert!(!simulation.accumulator.has_queued());
    }

    #[test]
    fn a_failure_gives_each_record_its_result_at_once(
        known in 1..=PARTITIONS.get(),
        steps in vec(step(), 0..80),
    ) {
        let mut simulation = Simulation::new(known);
        for step in steps {
            simulation.take(step);
        }
        simulation.fail();
        simulation.send(&[Some(0), None]);
        for call in &simulation.calls {
            prop_assert!(call.is_answered());
        }
        prop_assert_eq!(simulation.accumulator.records_in_flight(), 0);
        prop_assert!(!simulation.accumulator.has_queued());
    }

    #[test]
    fn a_close_leaves_no_record_without_a_result(
        known in 1..=PARTITIONS.get(),
        steps in vec(step(), 0..80),
    ) {
        let mut simulation = Simulation::new(known);
        for step in steps {
            simulation.take(step);
        }
        simulation.close();
        simulation.check_results();
        simulation.check_order();
        prop_assert_eq!(simulation.accumulator.records_in_flight(), 0);
        prop_assert!(!simulation.accumulator.has_queued());
    }
}
