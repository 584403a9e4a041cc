//! Requests of a member to the cluster.
//!
//! The polling thread does not wait for responses: each arrives in a queue, and wakes the thread.

mod offset_fetch;
mod open_questions;
mod reset_reader;
mod wake_schedule;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_core::Result;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use self::offset_fetch::OffsetFetches;
use self::open_questions::{OpenQuestions, Request, Response, known};
use self::reset_reader::ResetReader;
use self::wake_schedule::{WakeSchedule, one_per_leader};
use super::callbacks::ConsumerCallbacks;
use super::lists::list;
use super::poll_waker::PollWaker;
use super::state::{Finding, Question};
use super::types::TopicPartition;
use crate::connection::Connection;
use crate::error;
use crate::native::admin_queue::{self, AdminQueue, RequestId};
use crate::native::list_offsets::ListedOffset;

/// The timeout of one request.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The timeout of a read of committed offsets.
const TIMEOUT_TO_FETCH: Duration = Duration::from_secs(5);

/// The timeout of a request that only wakes a broker. It is longer than a fetch waits for records, because the
/// request may be queued behind a fetch.
const TIMEOUT_TO_WAKE: Duration = Duration::from_secs(5);

/// The interval between two reads of topic ids, which detect recreated topics.
const TOPIC_IDS_EVERY: Duration = Duration::from_secs(5);

/// The requests in flight, and the periodic requests.
pub(super) struct Requests {
    consumer: Arc<BaseConsumer<ConsumerCallbacks>>,
    queue: AdminQueue<ConsumerCallbacks>,
    questions: OpenQuestions,
    fetches: OffsetFetches,
    resets: ResetReader,
    /// The partitions whose resets and topic ids are read.
    watched: Vec<TopicPartition>,
    topic_ids_due: Instant,
    topic_ids_sent: Option<RequestId>,
    wakes: WakeSchedule,
    /// The last known leaders of partitions.
    leaders: HashMap<TopicPartition, Option<i32>>,
}

impl Requests {
    pub(super) fn new(
        connection: &Connection,
        consumer: Arc<BaseConsumer<ConsumerCallbacks>>,
        group: &Arc<str>,
        waker: &Arc<PollWaker>,
    ) -> Self {
        let now = Instant::now();
        let on_response = waker.clone();
        Self {
            queue: AdminQueue::new(consumer.clone(), move || on_response.wake()),
            consumer,
            questions: OpenQuestions::new(group.clone()),
            fetches: OffsetFetches::new(waker.clone()),
            resets: ResetReader::new(connection, group.clone(), waker.clone(), now),
            watched: Vec::new(),
            topic_ids_due: now + TOPIC_IDS_EVERY,
            topic_ids_sent: None,
            wakes: WakeSchedule::default(),
            leaders: HashMap::new(),
        }
    }

    pub(super) fn ask(&mut self, question: Question, now: Instant) {
        self.questions.push(question, now);
    }

    /// Reads the resets and topic ids of only these partitions from now on.
    pub(super) fn watch(&mut self, partitions: Vec<TopicPartition>) {
        self.watched = partitions;
    }

    /// Records the leaders of partitions.
    pub(super) fn set_leaders(&mut self, leaders: HashMap<TopicPartition, Option<i32>>) {
        self.leaders = leaders;
    }

    /// Makes librdkafka fetch partitions at once.
    pub(super) fn wake_leaders(&mut self, partitions: Vec<TopicPartition>, now: Instant) {
        self.wakes.wake(partitions, now);
    }

    /// Lets a subsequent rebalance begin at once.
    ///
    /// A cooperative rebalance that moves partitions is followed by another one. A member that has revoked no
    /// partitions joins it a second after it joined the first, because librdkafka (2.12) keeps that interval
    /// (`rkcg_join_intvl`). The moved partitions are not consumed until then. A metadata response between the two
    /// lifts the interval.
    pub(super) fn allow_rejoin(&self, topic: &str) {
        // Sent without waiting: only librdkafka uses the response.
        let _ = self.consumer.fetch_metadata(Some(topic), Duration::ZERO);
    }

    /// Sends the requests that are due. Returns what became known.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<Finding> {
        let mut findings = Vec::new();
        while let Some((id, committed)) = self.fetches.next() {
            let committed = committed.map(Response::Committed);
            let committed = committed.map_err(|failed| error::from("join", failed));
            findings.extend(self.questions.on_response(id, committed, now));
        }
        while let Some((id, response)) = self.queue.next() {
            findings.extend(self.on_response(id, response, now));
        }
        while let Some(resets) = self.resets.next(now) {
            if !resets.is_empty() {
                findings.push(Finding::Resets(resets));
            }
        }
        for (id, request) in self.questions.take_due(now) {
            if let Err(error) = self.send(id, request) {
                findings.extend(self.questions.on_response(id, Err(error), now));
            }
        }
        self.resets.read_if_due(&self.watched, now);
        self.read_topic_ids_if_due(now);
        if let Some(partitions) = self.wakes.take_due(now) {
            let partitions = one_per_leader(partitions, &self.leaders);
            // The response is ignored.
            let id = RequestId::default();
            let _ = self.send_offsets(id, &partitions, Offset::End, TIMEOUT_TO_WAKE);
        }
        findings
    }

    pub(super) fn next_due(&self) -> Instant {
        let due = self.questions.next_due().into_iter();
        let due = due
            .chain(self.wakes.next_due())
            .chain(self.resets.next_due());
        due.fold(self.topic_ids_due, Instant::min)
    }

    fn on_response(
        &mut self,
        id: RequestId,
        response: Result<admin_queue::Response, KafkaError>,
        now: Instant,
    ) -> Option<Finding> {
        if self.topic_ids_sent.take_if(|sent| *sent == id).is_some() {
            return match response {
                Ok(admin_queue::Response::TopicIds(ids)) => Some(Finding::TopicIds(known(ids))),
                _ => None,
            };
        }
        let response = response.and_then(|response| match response {
            admin_queue::Response::TopicIds(ids) => Ok(Response::TopicIds(ids)),
            admin_queue::Response::Offsets(offsets) => answered(offsets).map(Response::Offsets),
        });
        let response = response.map_err(|failed| error::from("join", failed));
        self.questions.on_response(id, response, now)
    }

    fn send(&mut self, id: RequestId, request: Request) -> Result<()> {
        let sent = match request {
            Request::Committed(names) => {
                let consumer = self.consumer.clone();
                self.fetches.begin(id, consumer, names, TIMEOUT_TO_FETCH);
                Ok(())
            }
            Request::TopicIds(topics) => {
                let topics: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
                self.queue.topic_ids(id, &topics, TIMEOUT)
            }
            Request::Oldest(names) => self.send_offsets(id, &names, Offset::Beginning, TIMEOUT),
            Request::Newest(names) => self.send_offsets(id, &names, Offset::End, TIMEOUT),
        };
        sent.map_err(|failed| error::from("join", failed))
    }

    fn send_offsets(
        &self,
        id: RequestId,
        names: &[TopicPartition],
        which: Offset,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let mut partitions: TopicPartitionList = list(names);
        partitions.set_all_offsets(which)?;
        self.queue.offsets(id, &partitions, timeout)
    }

    fn read_topic_ids_if_due(&mut self, now: Instant) {
        if now < self.topic_ids_due {
            return;
        }
        self.topic_ids_due = now + TOPIC_IDS_EVERY;
        let topics: BTreeSet<&str> = self.watched.iter().map(|(topic, _)| &**topic).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        if topics.is_empty() {
            return;
        }
        let id = self.questions.new_id();
        // A failed read is repeated.
        if self.queue.topic_ids(id, &topics, TOPIC_IDS_EVERY).is_ok() {
            self.topic_ids_sent = Some(id);
        }
    }

    /// Closes the requests. Waits for those that must not outlive the client.
    pub(super) fn close(self) {
        self.fetches.close();
        self.resets.close();
    }
}

/// Returns the offsets of a response. Fails if there is none.
fn answered(listed: Vec<ListedOffset>) -> Result<Vec<(TopicPartition, i64)>, KafkaError> {
    let mut failed = None;
    let mut offsets = Vec::new();
    for listed in listed {
        match listed.offset {
            Ok(offset) => offsets.push(((listed.topic.into(), listed.partition), offset)),
            Err(code) => failed = Some(code),
        }
    }
    match failed {
        Some(code) if offsets.is_empty() => Err(KafkaError::AdminOp(code)),
        _ => Ok(offsets),
    }
}
