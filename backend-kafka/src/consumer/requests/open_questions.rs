//! The questions without an answer, and the requests that resolve them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_core::telemetry::{Causes, event};
use millstream_core::{Error, ErrorKind, Result};

use crate::cluster::Absence;
use crate::consumer::state::{Failing, Finding, Progress, Question, TopicIds};
use crate::consumer::types::TopicPartition;
use crate::error;
use crate::native::admin_queue::RequestId;
use crate::native::topic_ids;

/// The delay before a request without a response is sent again.
const PAUSE: Duration = Duration::from_millis(100);

/// The delay before a request is repeated to a broker that did not know a topic.
const MISSING_TOPIC_EVERY: Duration = Duration::from_secs(1);

/// The maximum number of requests for topic ids before an assignment continues without them.
const TRIES_FOR_IDS: u32 = 3;

/// A request to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Fetches the offsets that the group has committed.
    Committed(Vec<TopicPartition>),
    /// Fetches the ids of topics.
    TopicIds(Vec<Arc<str>>),
    /// Lists the oldest offsets of partitions.
    Oldest(Vec<TopicPartition>),
    /// Lists the next offsets of partitions.
    Newest(Vec<TopicPartition>),
}

/// A response of the cluster.
#[derive(Debug)]
pub(super) enum Response {
    Committed(Vec<(TopicPartition, Option<Progress>)>),
    TopicIds(topic_ids::TopicIds),
    /// The offsets of the partitions that have a result.
    Offsets(Vec<(TopicPartition, i64)>),
}

/// A request that belongs to a question.
#[derive(Debug)]
struct Part {
    request: Request,
    /// How often it is sent before the question is resolved without it. `None` means without limit.
    tries_left: Option<u32>,
    state: PartState,
}

#[derive(Debug)]
enum PartState {
    Due(Instant),
    Sent(RequestId),
    /// `None` if it was given up.
    Done(Option<Response>),
}

/// A question without an answer.
#[derive(Debug)]
struct Open {
    question: Question,
    parts: Vec<Part>,
    failing: Failing,
    absence: Absence,
}

/// The effect of a response.
enum Step {
    /// Other requests of the question have no response yet, or one is sent again.
    Wait,
    /// The question is resolved. Some questions have nothing to report.
    Done(Option<Finding>),
}

/// The questions without an answer. They do not wait for each other.
#[derive(Debug)]
pub(super) struct OpenQuestions {
    group: Arc<str>,
    open: Vec<Open>,
    last_id: RequestId,
}

impl OpenQuestions {
    pub(super) fn new(group: Arc<str>) -> Self {
        Self {
            group,
            open: Vec::new(),
            last_id: RequestId::default(),
        }
    }

    /// Returns a unique request id.
    pub(super) fn new_id(&mut self) -> RequestId {
        self.last_id.0 += 1;
        self.last_id
    }

    pub(super) fn push(&mut self, question: Question, now: Instant) {
        let is_known = |open: &Open| open.question == question;
        // It is repeated until it has an answer.
        if matches!(question, Question::Topic(_)) && self.open.iter().any(is_known) {
            return;
        }
        self.open.push(Open::new(question, now));
    }

    /// Returns the requests that are due. They count as sent.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(RequestId, Request)> {
        let mut due = Vec::new();
        for part in self.open.iter_mut().flat_map(|open| &mut open.parts) {
            if matches!(part.state, PartState::Due(at) if at <= now) {
                self.last_id.0 += 1;
                part.state = PartState::Sent(self.last_id);
                due.push((self.last_id, part.request.clone()));
            }
        }
        due
    }

    /// Returns when the next request is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let parts = self.open.iter().flat_map(|open| &open.parts);
        let due = parts.filter_map(|part| match part.state {
            PartState::Due(at) => Some(at),
            _ => None,
        });
        due.min()
    }

    /// Handles the response to a request. Returns the findings.
    pub(super) fn on_response(
        &mut self,
        id: RequestId,
        response: Result<Response>,
        now: Instant,
    ) -> Option<Finding> {
        let index = self.open.iter().position(|open| open.has_sent(id))?;
        let step = match response {
            Ok(response) => self.open[index].on_answered(id, response, now),
            Err(error) => self.open[index].on_failed(id, error, &self.group, now),
        };
        let Step::Done(finding) = step else {
            return None;
        };
        let open = self.open.remove(index);
        if open.failing.is_reported() && !matches!(finding, Some(Finding::Failed(_))) {
            event!(
                info, "millstream.kafka.member.answered", group = &*self.group,
                question = ?open.question, "the cluster answers a member of group {}", self.group,
            );
        }
        finding
    }
}

impl Open {
    fn new(question: Question, now: Instant) -> Self {
        let required = |request| (request, None);
        let ids = |names: &[TopicPartition]| {
            let topics: BTreeSet<_> = names.iter().map(|(topic, _)| topic.clone()).collect();
            let request = Request::TopicIds(topics.into_iter().collect());
            (request, Some(TRIES_FOR_IDS))
        };
        let requests = match &question {
            Question::Progress(names) => {
                vec![required(Request::Committed(names.clone())), ids(names)]
            }
            Question::Unstored(names) => vec![required(Request::Committed(names.clone()))],
            Question::Bounds(name) => {
                let names = vec![name.clone()];
                vec![
                    ids(&names),
                    required(Request::Oldest(names.clone())),
                    required(Request::Newest(names)),
                ]
            }
            Question::Ends(names) => vec![(Request::Newest(names.clone()), Some(1))],
            Question::Topic(topic) => vec![required(Request::TopicIds(vec![topic.clone()]))],
        };
        let part = |(request, tries_left)| Part {
            request,
            tries_left,
            state: PartState::Due(now),
        };
        Self {
            question,
            parts: requests.into_iter().map(part).collect(),
            failing: Failing::since(now),
            absence: Absence::default(),
        }
    }

    fn has_sent(&self, id: RequestId) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| matches!(part.state, PartState::Sent(sent) if sent == id))
    }

    fn part(&mut self, id: RequestId) -> &mut Part {
        let mut parts = self.parts.iter_mut();
        let part = parts.find(|part| matches!(part.state, PartState::Sent(sent) if sent == id));
        part.expect("it was just found")
    }

    fn on_answered(&mut self, id: RequestId, response: Response, now: Instant) -> Step {
        if let (Question::Topic(topic), Response::TopicIds(ids)) = (&self.question, &response) {
            let topic = topic.clone();
            let is_unknown = match ids.get(&topic) {
                Some(Err(code)) => error::kind(*code) == ErrorKind::NotFound,
                _ => false,
            };
            if !is_unknown {
                return Step::Done(None);
            }
            if self.absence.on_unknown(now) {
                return Step::Done(Some(Finding::NoTopic(topic)));
            }
            self.part(id).state = PartState::Due(now + MISSING_TOPIC_EVERY);
            return Step::Wait;
        }
        self.part(id).state = PartState::Done(Some(response));
        self.answer_if_done()
    }

    fn on_failed(&mut self, id: RequestId, error: Error, group: &str, now: Instant) -> Step {
        tracing::debug!(target: "librdkafka", error = %Causes(&error), "a request was not answered");
        let part = self.part(id);
        part.state = PartState::Due(now + PAUSE);
        if let Some(left) = &mut part.tries_left {
            *left -= 1;
            if *left == 0 {
                part.state = PartState::Done(None);
            }
            return self.answer_if_done();
        }
        // The broker may just not know the topic yet.
        let is_behind = error.kind() == ErrorKind::NotFound && !self.absence.on_unknown(now);
        if !error.is_retryable() && !is_behind {
            return Step::Done(Some(Finding::Failed(error)));
        }
        if self.failing.is_to_be_reported(now) {
            event!(
                warn, "millstream.kafka.member.unanswered", group,
                question = ?self.question, error = %Causes(&error),
                "the cluster does not answer a member of group {group}, and partitions may stand \
                 still until it does",
            );
        }
        Step::Wait
    }

    fn answer_if_done(&mut self) -> Step {
        let is_done = |part: &Part| matches!(part.state, PartState::Done(_));
        if !self.parts.iter().all(is_done) {
            return Step::Wait;
        }
        let responses = self.parts.drain(..).filter_map(|part| match part.state {
            PartState::Done(response) => Some((part.request, response?)),
            _ => None,
        });
        let mut answer = Answer::default();
        for (request, response) in responses {
            match (request, response) {
                (_, Response::Committed(progress)) => answer.progress = progress,
                (_, Response::TopicIds(ids)) => answer.topic_ids = known(ids),
                (Request::Oldest(_), Response::Offsets(offsets)) => answer.oldest = offsets,
                (_, Response::Offsets(offsets)) => answer.newest = offsets,
            }
        }
        Step::Done(answer.to(&self.question))
    }
}

/// All responses of one question.
#[derive(Default)]
struct Answer {
    progress: Vec<(TopicPartition, Option<Progress>)>,
    topic_ids: TopicIds,
    oldest: Vec<(TopicPartition, i64)>,
    newest: Vec<(TopicPartition, i64)>,
}

impl Answer {
    fn to(self, question: &Question) -> Option<Finding> {
        Some(match question {
            Question::Progress(_) => Finding::Progress {
                progress: self.progress,
                topic_ids: self.topic_ids,
            },
            Question::Unstored(_) => {
                let unstored = self.progress.into_iter();
                let unstored = unstored.filter(|(_, progress)| progress.is_none());
                Finding::Unstored(unstored.map(|(name, _)| name).collect())
            }
            Question::Bounds(name) => Finding::Bounds {
                partition: name.clone(),
                low: self.oldest.first()?.1,
                high: self.newest.first()?.1,
                topic_id: self.topic_ids.get(&name.0).copied(),
            },
            Question::Ends(_) => Finding::Ends(self.newest),
            Question::Topic(_) => return None,
        })
    }
}

/// Returns the ids that were reported.
pub(super) fn known(ids: topic_ids::TopicIds) -> TopicIds {
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

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode;

    use super::*;
    use crate::captured_log::CapturedLog;

    fn name(partition: i32) -> TopicPartition {
        ("s".into(), partition)
    }

    fn questions() -> OpenQuestions {
        OpenQuestions::new("g".into())
    }

    fn unavailable() -> Result<Response> {
        Err(Error::new(ErrorKind::Unavailable, "join", "no answer"))
    }

    fn offsets(partition: i32, offset: i64) -> Result<Response> {
        Ok(Response::Offsets(vec![(name(partition), offset)]))
    }

    #[test]
    fn a_question_without_an_answer_holds_up_no_other() {
        let now = Instant::now();
        let mut questions = questions();
        questions.push(Question::Bounds(name(0)), now);
        let unanswered = questions.take_due(now);
        assert_eq!(unanswered.len(), 3);
        questions.push(Question::Progress(vec![name(2)]), now);
        let mut found = Vec::new();
        for (id, request) in questions.take_due(now) {
            let response = match request {
                Request::Committed(names) => {
                    Response::Committed(names.into_iter().map(|name| (name, None)).collect())
                }
                _ => Response::TopicIds(topic_ids::TopicIds::new()),
            };
            found.extend(questions.on_response(id, Ok(response), now));
        }
        assert!(
            matches!(&found[..], [Finding::Progress { .. }]),
            "{found:?}"
        );
        assert_eq!(questions.next_due(), None, "all are sent");
    }

    #[test]
    fn a_request_is_sent_again_until_it_is_answered() {
        let mut now = Instant::now();
        let mut questions = questions();
        questions.push(Question::Bounds(name(0)), now);
        for _ in 0..10 {
            for (id, _) in questions.take_due(now) {
                assert!(questions.on_response(id, unavailable(), now).is_none());
            }
            assert_eq!(questions.next_due(), Some(now + PAUSE));
            assert!(questions.take_due(now).is_empty(), "a pause comes first");
            now += PAUSE;
        }
        let mut found = None;
        for (id, request) in questions.take_due(now) {
            let offset = match request {
                Request::Oldest(_) => 5,
                Request::Newest(_) => 7,
                // It was given up.
                other => panic!("{other:?}"),
            };
            found = questions.on_response(id, offsets(0, offset), now);
        }
        assert!(
            matches!(
                found,
                Some(Finding::Bounds {
                    low: 5,
                    high: 7,
                    topic_id: None,
                    ..
                })
            ),
            "{found:?}"
        );
        assert_eq!(questions.next_due(), None);
    }

    #[test]
    fn a_question_that_stays_unanswered_is_reported_and_so_is_its_end() {
        let log = CapturedLog::new("info");
        let mut now = Instant::now();
        let until = now + Duration::from_secs(30);
        let mut questions = questions();
        questions.push(Question::Unstored(vec![name(0)]), now);
        while now < until {
            for (id, _) in questions.take_due(now) {
                assert!(questions.on_response(id, unavailable(), now).is_none());
            }
            now = questions.next_due().unwrap();
        }
        let count = |event: &str| log.text().matches(event).count();
        let (unanswered, answered) = (
            "millstream.kafka.member.unanswered",
            "millstream.kafka.member.answered",
        );
        assert_eq!(
            (count(unanswered), count(answered)),
            (1, 0),
            "{}",
            log.text()
        );
        assert!(log.text().contains("no answer"), "{}", log.text());
        let sent = questions.take_due(now);
        let stored = Ok(Response::Committed(vec![(name(0), None)]));
        assert!(questions.on_response(sent[0].0, stored, now).is_some());
        assert_eq!(
            (count(unanswered), count(answered)),
            (1, 1),
            "{}",
            log.text()
        );
    }

    #[test]
    fn ends_are_asked_for_once() {
        let now = Instant::now();
        let mut questions = questions();
        questions.push(Question::Ends(vec![name(0)]), now);
        let sent = questions.take_due(now);
        let found = questions.on_response(sent[0].0, unavailable(), now);
        assert!(matches!(found, Some(Finding::Ends(ends)) if ends.is_empty()));
        assert_eq!(questions.next_due(), None);
        assert!(
            questions
                .on_response(sent[0].0, offsets(0, 1), now)
                .is_none(),
            "it is late"
        );
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let now = Instant::now();
        let mut questions = questions();
        questions.push(Question::Unstored(vec![name(0)]), now);
        let sent = questions.take_due(now);
        let denied = error::from_code("join", RDKafkaErrorCode::GroupAuthorizationFailed);
        let found = questions.on_response(sent[0].0, Err(denied), now);
        assert!(matches!(found, Some(Finding::Failed(error)) if error.kind() == ErrorKind::Denied));
    }

    #[test]
    fn a_topic_is_gone_when_it_is_unknown_for_a_while() {
        let begun = Instant::now();
        let mut now = begun;
        let mut questions = questions();
        let topic: Arc<str> = "s".into();
        let unknown = || {
            let unknown = Err(RDKafkaErrorCode::UnknownTopicOrPartition);
            Ok(Response::TopicIds([(topic.clone(), unknown)].into()))
        };
        let found = loop {
            questions.push(Question::Topic(topic.clone()), now);
            let sent = questions.take_due(now);
            assert_eq!(sent.len(), 1, "it is asked once at a time");
            if let Some(found) = questions.on_response(sent[0].0, unknown(), now) {
                break found;
            }
            now = questions.next_due().unwrap();
        };
        assert!(matches!(found, Finding::NoTopic(gone) if gone == topic));
        let took = now - begun;
        let expected = Duration::from_secs(20)..Duration::from_secs(60);
        assert!(expected.contains(&took), "{took:?}");
        // A topic that exists again ends the question.
        questions.push(Question::Topic(topic.clone()), now);
        let sent = questions.take_due(now);
        let there = Ok(Response::TopicIds([(topic.clone(), Ok(None))].into()));
        assert!(questions.on_response(sent[0].0, there, now).is_none());
        assert_eq!(questions.next_due(), None);
    }
}
