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
use super::slots::Move;
use crate::connection::context::Context;
use crate::error;
use crate::group::offsets::Note;
use crate::group::reset;
use crate::native::topic_ids;

/// How long one request waits for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same, for what is asked to be shown only: other questions wait meanwhile.
const BRIEFLY: Duration = Duration::from_secs(1);

/// How often the ids of topics are asked for, at the most, before an assignment goes on without them.
const TRIES_FOR_IDS: usize = 3;

/// How soon a question is asked again that was not answered.
const PAUSE: Duration = Duration::from_millis(100);

/// How long the read of requests for a reset waits. It is repeated anyway, and other questions wait
/// behind it.
const PATIENCE_WITH_RESETS: Duration = Duration::from_millis(500);

/// How often the requests for a reset are read.
const RESETS_EVERY: Duration = Duration::from_secs(1);

/// What the polling thread wants to know.
pub(super) enum Question {
    /// The stored progress of partitions. Asked until it is answered.
    Progress(Vec<Name>),
    /// The oldest and the next offset of a partition. Asked until it is answered.
    Bounds(Name),
    /// The next offsets of partitions. Asked once: it will be asked again.
    Ends(Vec<Name>),
    /// Whether a topic is still there. Asked until it is answered.
    Topic(Arc<str>),
    /// Which partitions can be reset from now on.
    Watch(Vec<Name>),
}

/// What became known.
pub(super) enum Finding {
    Progress {
        progress: Vec<(Name, Option<Progress>)>,
        /// The ids of their topics, as far as they are known.
        stream_ids: StreamIds,
    },
    Bounds {
        name: Name,
        low: i64,
        high: i64,
    },
    Ends(Vec<(Name, i64)>),
    /// The topic is gone.
    NoTopic(Arc<str>),
    /// Resets that were asked for.
    Resets(Vec<(Name, Move)>),
    /// No waiting will answer it.
    Failed(Error),
}

/// The ids of streams, by topic.
pub(super) type StreamIds = HashMap<Arc<str>, Arc<str>>;

/// Where a group stands in a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    pub(super) next: i64,
    pub(super) note: Note,
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
            watched: Vec::new(),
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
    watched: Vec<Name>,
    answers: Sender<Command>,
    bell: Arc<Bell>,
    closing: Arc<AtomicBool>,
}

impl Work {
    fn run(mut self, asked: &Receiver<Question>) {
        let mut look = Instant::now() + RESETS_EVERY;
        loop {
            match asked.recv_timeout(look.saturating_duration_since(Instant::now())) {
                Ok(question) => self.answer(question),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.look_for_resets();
                    look = Instant::now() + RESETS_EVERY;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn answer(&mut self, question: Question) {
        let finding = match question {
            Question::Progress(names) => self.assignment(&names),
            Question::Bounds(name) => self.until_answered(|aide| aide.bounds(&name)),
            Question::Topic(topic) => self.until_answered(|aide| aide.topic(&topic)).flatten(),
            Question::Ends(names) => self.ends(&names).ok(),
            Question::Watch(names) => {
                self.watched = names;
                None
            }
        };
        if let Some(finding) = finding {
            self.tell(finding);
        }
    }

    fn tell(&self, finding: Finding) {
        // The polling thread has ended: nobody wants to know.
        let _ = self.answers.send(Command::Found(finding));
        self.bell.ring();
    }

    /// Asks again what may be answered later. None when the member closes.
    fn until_answered<T>(&self, ask: impl Fn(&Self) -> Result<T, KafkaError>) -> Option<T>
    where
        T: From<Failed>,
    {
        while !self.closing.load(Relaxed) {
            match ask(self) {
                Ok(answer) => return Some(answer),
                Err(failed) => {
                    let error = error::from("join", failed);
                    if !error.is_retryable() {
                        return Some(Failed(error).into());
                    }
                    tracing::debug!(target: "librdkafka", error = %Causes(&error), "asking again");
                    thread::sleep(PAUSE);
                }
            }
        }
        None
    }

    fn progress(&self, names: &[Name]) -> Result<Finding, KafkaError> {
        let found = self.consumer.committed_offsets(list(names), PATIENCE)?;
        Ok(Finding::Progress {
            progress: stored(&found)?,
            stream_ids: StreamIds::new(),
        })
    }

    /// What is to be known of partitions before they are read.
    fn assignment(&self, names: &[Name]) -> Option<Finding> {
        let topics: BTreeSet<&str> = names.iter().map(|(topic, _)| &**topic).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        // Answered while the progress is read.
        let ids = topic_ids::request(self.consumer.client(), &topics, BRIEFLY);
        let mut finding = self.until_answered(|aide| aide.progress(names))?;
        if let Finding::Progress { stream_ids, .. } = &mut finding {
            *stream_ids = self.stream_ids(&topics, ids);
        }
        Some(finding)
    }

    /// Waits for the ids of topics. A topic whose id is refused or not answered has none: a member
    /// must not stand still for it.
    fn stream_ids(
        &self,
        topics: &[&str],
        first: Result<topic_ids::Request<'_>, KafkaError>,
    ) -> StreamIds {
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

    fn bounds(&self, name: &Name) -> Result<Finding, KafkaError> {
        let (low, high) = self.consumer.fetch_watermarks(&name.0, name.1, PATIENCE)?;
        Ok(Finding::Bounds {
            name: name.clone(),
            low,
            high,
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

    fn topic(&self, topic: &Arc<str>) -> Result<Option<Finding>, KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let found = metadata.topics().iter().find(|t| t.name() == &**topic);
        let error = found.and_then(|topic| topic.error());
        let gone = error.is_some_and(|code| error::kind(code.into()) == ErrorKind::NotFound);
        Ok(gone.then(|| Finding::NoTopic(topic.clone())))
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
            let Progress { next, note } = progress?;
            let id = note.reset?;
            Some((name, Move { id, offset: next }))
        });
        let resets: Vec<(Name, Move)> = resets.collect();
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

/// Reads a list of committed offsets; any partition's error fails the whole.
fn stored(found: &TopicPartitionList) -> Result<Vec<(Name, Option<Progress>)>, KafkaError> {
    let elements = found.elements();
    let each = elements.iter().map(|element| {
        element.error()?;
        let name = (Arc::from(element.topic()), element.partition());
        let progress = match element.offset() {
            Offset::Offset(next) => Some(Progress {
                next,
                note: Note::from_metadata(element.metadata()),
            }),
            _ => None,
        };
        Ok((name, progress))
    });
    each.collect()
}

/// An answer that no waiting brings.
struct Failed(Error);

impl From<Failed> for Finding {
    fn from(Failed(error): Failed) -> Self {
        Self::Failed(error)
    }
}

impl From<Failed> for Option<Finding> {
    fn from(failed: Failed) -> Self {
        Some(failed.into())
    }
}
