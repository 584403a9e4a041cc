//! A thread for the questions that block, so that the polling thread never does.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use millstream_core::telemetry::{Causes, event};
use millstream_core::{Error, ErrorKind, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::bell::Bell;
use super::context::{MemberContext, Name, list};
use super::poller::Command;
use super::progress::Progress;
use super::questions::{Open, Question, Questions};
use crate::cluster::Absence;
use crate::connection::context::Context;
use crate::error;
use crate::group::note::Note;
use crate::group::reset;
use crate::native::topic_ids::TopicId;
use crate::native::{leader_epoch, topic_ids};

/// How long one request waits for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same, for what is asked to be shown only: other questions wait meanwhile.
const BRIEFLY: Duration = Duration::from_secs(1);

/// How often the ids of topics are asked for, at the most, before an assignment goes on without them.
const TRIES_FOR_IDS: usize = 3;

/// How long the read of requests for a reset waits. It is repeated anyway, and other questions wait
/// behind it.
const PATIENCE_WITH_RESETS: Duration = Duration::from_millis(500);

/// How long the regular request for the ids of topics waits, for the same reasons.
const PATIENCE_WITH_TOPIC_IDS: Duration = Duration::from_millis(500);

/// How often the requests for a reset are read.
const RESETS_EVERY: Duration = Duration::from_secs(1);

/// How often the ids of topics are read, to notice those that were created again.
const TOPIC_IDS_EVERY: Duration = Duration::from_secs(5);

/// The same, after a request for them was not answered: other questions wait behind each.
const TOPIC_IDS_AGAIN: Duration = Duration::from_secs(15);

/// What became known.
pub(super) enum Finding {
    Progress {
        progress: Vec<(Name, Option<Progress>)>,
        /// The ids of their topics, as far as they are known.
        topic_ids: TopicIds,
    },
    /// The partitions of which nothing is stored.
    Unstored(Vec<Name>),
    Bounds {
        name: Name,
        low: i64,
        high: i64,
        /// The id of its topic, if it is known.
        topic_id: Option<TopicId>,
    },
    /// The ids that topics have now.
    TopicIds(TopicIds),
    Ends(Vec<(Name, i64)>),
    /// The topic is gone.
    NoTopic(Arc<str>),
    /// Resets that were asked for.
    Resets(Vec<(Name, Reset)>),
    /// No waiting will answer it.
    Failed(Error),
}

/// The ids of topics, by name.
pub(super) type TopicIds = HashMap<Arc<str>, TopicId>;

/// A request to move a group in a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reset {
    /// Grows with each reset of the group.
    pub(super) id: u64,
    pub(super) offset: i64,
}

#[derive(Debug)]
pub(super) struct Aide {
    questions: Option<Sender<Question>>,
    thread: Option<JoinHandle<()>>,
    closing: Arc<AtomicBool>,
}

impl Aide {
    pub(super) fn start(
        consumer: Arc<BaseConsumer<MemberContext>>,
        side: BaseConsumer<Context>,
        group: &str,
        answers: Sender<Command>,
        bell: Arc<Bell>,
    ) -> Result<Self> {
        let (questions, asked) = mpsc::channel();
        let closing = Arc::new(AtomicBool::new(false));
        let work = Work {
            consumer,
            side,
            group: group.into(),
            is_deaf: false,
            questions: Questions::default(),
            watched: Vec::new(),
            missing: HashMap::new(),
            answers,
            bell,
            closing: closing.clone(),
        };
        let thread = thread::Builder::new()
            .name("kafka-aide".into())
            .spawn(move || work.run(&asked))
            .map_err(no_thread)?;
        Ok(Self {
            questions: Some(questions),
            thread: Some(thread),
            closing,
        })
    }

    pub(super) fn ask(&self, question: Question) {
        if let Some(questions) = &self.questions {
            // It ends only with this.
            let _ = questions.send(question);
        }
    }

    /// Ends it; waits for the request that is under way.
    pub(super) fn close(&mut self) {
        self.closing.store(true, Relaxed);
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

pub(super) fn no_thread(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "join", "no thread is to be had").with_source(error)
}

struct Work {
    consumer: Arc<BaseConsumer<MemberContext>>,
    /// In the group beside the group, where resets are asked for.
    side: BaseConsumer<Context>,
    group: Box<str>,
    /// Whether it was told that resets cannot be read.
    is_deaf: bool,
    questions: Questions,
    watched: Vec<Name>,
    /// Topics that a broker did not know. They are asked for again until they are there, or are gone.
    missing: HashMap<Arc<str>, Absence>,
    answers: Sender<Command>,
    bell: Arc<Bell>,
    closing: Arc<AtomicBool>,
}

impl Work {
    fn run(mut self, asked: &Receiver<Question>) {
        let mut look = Instant::now() + RESETS_EVERY;
        let mut look_at_topics = Instant::now() + TOPIC_IDS_EVERY;
        loop {
            let due = self.questions.next_due().map_or(look, |due| due.min(look));
            match asked.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(question) => self.questions.push(question, Instant::now()),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            for question in asked.try_iter() {
                self.questions.push(question, Instant::now());
            }
            if let Some(open) = self.questions.next(Instant::now()) {
                self.ask(open);
            }
            let now = Instant::now();
            if now >= look {
                self.look_for_resets();
                self.look_for_missing();
                if now >= look_at_topics {
                    look_at_topics = Instant::now() + self.look_at_topics();
                }
                look = Instant::now() + RESETS_EVERY;
            }
        }
    }

    /// Asks once.
    fn ask(&mut self, mut open: Open) {
        let finding = match &open.question {
            Question::Progress(names) => self.assignment(names).map(Some),
            Question::Unstored(names) => self.unstored(names).map(Some),
            Question::Bounds(name) => self.bounds(name).map(Some),
            Question::Topic(topic) => {
                self.missing.entry(topic.clone()).or_default();
                Ok(self.look_for(topic))
            }
            Question::Ends(names) => Ok(self.ends(names).ok()),
            Question::Watch(names) => {
                self.watched.clone_from(names);
                return;
            }
        };
        match finding.map_err(|failed| error::from("join", failed)) {
            Ok(finding) => {
                if open.failing.is_reported() {
                    event!(
                        info, "millstream.kafka.member.answered", group = &*self.group,
                        question = ?open.question, "the cluster answers a member of group {}",
                        self.group,
                    );
                }
                finding.into_iter().for_each(|finding| self.tell(finding));
            }
            Err(error) if error.is_retryable() || open.is_behind(&error) => {
                let now = Instant::now();
                if open.failing.is_to_be_reported(now) {
                    event!(
                        warn, "millstream.kafka.member.unanswered", group = &*self.group,
                        question = ?open.question, error = %Causes(&error),
                        "the cluster does not answer a member of group {}, and partitions may stand \
                         still until it does", self.group,
                    );
                }
                tracing::debug!(target: "librdkafka", error = %Causes(&error), "asking again");
                self.questions.again(open, now);
            }
            Err(error) => self.tell(Finding::Failed(error)),
        }
    }

    fn tell(&self, finding: Finding) {
        // The polling thread has ended: nobody wants to know.
        let _ = self.answers.send(Command::Found(finding));
        self.bell.ring();
    }

    fn progress(&self, names: &[Name]) -> Result<Finding, KafkaError> {
        let found = self.consumer.committed_offsets(list(names), PATIENCE)?;
        Ok(Finding::Progress {
            progress: stored(&found)?,
            topic_ids: TopicIds::new(),
        })
    }

    fn unstored(&self, names: &[Name]) -> Result<Finding, KafkaError> {
        let found = self.consumer.committed_offsets(list(names), PATIENCE)?;
        let unstored = stored(&found)?.into_iter();
        let unstored = unstored.filter(|(_, progress)| progress.is_none());
        Ok(Finding::Unstored(unstored.map(|(name, _)| name).collect()))
    }

    /// What is to be known of partitions before they are read.
    fn assignment(&self, names: &[Name]) -> Result<Finding, KafkaError> {
        let topics = topics_of(names);
        // Answered while the progress is read.
        let ids = topic_ids::request(self.consumer.client(), &topics, BRIEFLY);
        let mut finding = self.progress(names)?;
        if let Finding::Progress { topic_ids, .. } = &mut finding {
            *topic_ids = self.topic_ids(&topics, ids);
        }
        Ok(finding)
    }

    /// Waits for the ids of topics. A topic whose id is refused or not answered has none: a member
    /// must not stand still for it.
    fn topic_ids(
        &self,
        topics: &[&str],
        first: Result<topic_ids::Request<'_>, KafkaError>,
    ) -> TopicIds {
        let again = || topic_ids::request(self.consumer.client(), topics, BRIEFLY);
        let mut response = first.and_then(topic_ids::Request::response);
        for _ in 1..TRIES_FOR_IDS {
            if response.is_ok() || self.closing.load(Relaxed) {
                break;
            }
            response = again().and_then(topic_ids::Request::response);
        }
        let ids = response.unwrap_or_else(|error| {
            tracing::debug!(target: "librdkafka", %error, "the ids of topics are not known");
            HashMap::new()
        });
        known(ids)
    }

    /// Tells the ids that the topics have now. Returns when to look again.
    fn look_at_topics(&self) -> Duration {
        if self.watched.is_empty() {
            return TOPIC_IDS_EVERY;
        }
        let topics = topics_of(&self.watched);
        let asked = topic_ids::request(self.consumer.client(), &topics, PATIENCE_WITH_TOPIC_IDS);
        match asked.and_then(topic_ids::Request::response) {
            Ok(ids) => {
                self.tell(Finding::TopicIds(known(ids)));
                TOPIC_IDS_EVERY
            }
            Err(error) => {
                tracing::debug!(target: "librdkafka", %error, "the ids of topics are not known");
                TOPIC_IDS_AGAIN
            }
        }
    }

    fn bounds(&self, name: &Name) -> Result<Finding, KafkaError> {
        let (low, high) = self.consumer.fetch_watermarks(&name.0, name.1, BRIEFLY)?;
        let ids = topic_ids::request(self.consumer.client(), &[&*name.0], BRIEFLY);
        let ids = self.topic_ids(&[&*name.0], ids);
        Ok(Finding::Bounds {
            name: name.clone(),
            low,
            high,
            topic_id: ids.get(&name.0).copied(),
        })
    }

    /// What is left out was not answered.
    fn ends(&self, names: &[Name]) -> Result<Finding, KafkaError> {
        let mut times = list(names);
        times.set_all_offsets(Offset::End)?;
        let found = self.consumer.offsets_for_times(times, BRIEFLY)?;
        let elements = found.elements();
        let ends = elements
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(end) if element.error().is_ok() => {
                    Some(((Arc::from(element.topic()), element.partition()), end))
                }
                _ => None,
            });
        Ok(Finding::Ends(ends.collect()))
    }

    fn look_for_missing(&mut self) {
        let missing: Vec<Arc<str>> = self.missing.keys().cloned().collect();
        for topic in missing {
            if let Some(finding) = self.look_for(&topic) {
                self.tell(finding);
            }
        }
    }

    /// Asks for a missing topic once.
    fn look_for(&mut self, topic: &Arc<str>) -> Option<Finding> {
        let metadata = self.consumer.fetch_metadata(Some(topic), BRIEFLY).ok()?;
        let found = metadata.topics().iter().find(|t| t.name() == &**topic);
        let error = found.and_then(|topic| topic.error());
        if error.is_none_or(|code| error::kind(code.into()) != ErrorKind::NotFound) {
            self.missing.remove(topic);
            return None;
        }
        let absence = self.missing.get_mut(topic)?;
        let is_gone = absence.on_unknown(Instant::now());
        is_gone.then(|| Finding::NoTopic(topic.clone()))
    }

    fn look_for_resets(&mut self) {
        // Serves its errors and tokens; records never come.
        drop(self.side.poll(Duration::ZERO));
        self.side.context().look_after(self.side.client());
        if self.watched.is_empty() {
            return;
        }
        let watched = list(&self.watched);
        let found = self.side.committed_offsets(watched, PATIENCE_WITH_RESETS);
        let stored = match found.and_then(|found| stored(&found)) {
            Ok(stored) => stored,
            Err(failed) => return self.tell_deafness(failed),
        };
        let resets = stored.into_iter().filter_map(|(name, progress)| {
            let Progress { next, note, .. } = progress?;
            let id = note.reset?;
            Some((name, Reset { id, offset: next }))
        });
        let resets: Vec<(Name, Reset)> = resets.collect();
        if !resets.is_empty() {
            self.tell(Finding::Resets(resets));
        }
    }

    /// Says once that no reset will reach this member, if it is for want of a right. The member needs
    /// none of that for its work, so it goes on.
    fn tell_deafness(&mut self, failed: KafkaError) {
        // Who may not even ask for the coordinator merely times out; the reason comes by its events.
        let trouble = self.side.context().trouble.first();
        let error = trouble.unwrap_or_else(|| error::from("read resets", failed));
        if error.kind() != ErrorKind::Denied || std::mem::replace(&mut self.is_deaf, true) {
            return;
        }
        let (group, beside) = (&*self.group, reset::side_group(&self.group));
        event!(
            warn, "millstream.consumer.resets_denied", group, beside, error = %Causes(&error),
            "resets of group {group} do not reach this member, as it may not read group {beside}: \
             grant Read on it",
        );
    }
}

/// The topics of partitions, each once.
fn topics_of(names: &[Name]) -> Vec<&str> {
    let topics: BTreeSet<&str> = names.iter().map(|(topic, _)| &**topic).collect();
    topics.into_iter().collect()
}

/// The ids that were told.
fn known(ids: topic_ids::TopicIds) -> TopicIds {
    let known = ids.into_iter().filter_map(|(topic, id)| {
        let id = id.unwrap_or_else(|error| {
            tracing::debug!(
                target: "librdkafka", %topic, %error, "the id of the topic is not known"
            );
            None
        });
        Some((topic, id?))
    });
    known.collect()
}

/// Reads a list of committed offsets; any partition's error fails the whole.
fn stored(found: &TopicPartitionList) -> Result<Vec<(Name, Option<Progress>)>, KafkaError> {
    let elements = found.elements();
    let each = elements.iter().zip(leader_epoch::all(found));
    let each = each.map(|(element, leader_epoch)| {
        element.error()?;
        let name = (Arc::from(element.topic()), element.partition());
        let progress = match element.offset() {
            Offset::Offset(next) => Some(Progress {
                next,
                leader_epoch,
                note: Note::from_metadata(element.metadata()),
            }),
            _ => None,
        };
        Ok((name, progress))
    });
    each.collect()
}
