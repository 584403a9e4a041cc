//! The faults that a proxy injects into requests.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::request::{Operation, Request};

const NOW: Duration = Duration::ZERO;

/// The faults of one proxy, or of the proxies of one cluster. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    planned: Vec<PlannedFault>,
    /// The number of hits of each topic, group and client.
    hits: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct PlannedFault {
    /// A topic of sends and of metadata, a group of commits, or a client.
    of: String,
    what: FaultKind,
    times: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FaultKind {
    CutSend,
    RefuseSend,
    LoseAnswer,
    TimeOutSend,
    DelayAnswer(Duration),
    RefuseCommit(i16),
    LoseCommit,
    HoldCommit(Duration),
    RefuseStepLate(Duration),
    LoseStepAnswer,
    HideBrokers,
    HideTopic,
    FailFetch(i16),
    RefuseLogin(&'static str),
}

impl FaultKind {
    fn is_of_sends(self) -> bool {
        !self.is_of_commits()
            && !self.is_of_steps()
            && !self.is_of_ends_of_steps()
            && !self.is_of_the_cluster()
            && !self.is_of_topics()
            && !self.is_of_fetches()
            && !self.is_of_logins()
    }

    fn is_of_logins(self) -> bool {
        matches!(self, Self::RefuseLogin(_))
    }

    fn is_of_topics(self) -> bool {
        self == Self::HideTopic
    }

    fn is_of_fetches(self) -> bool {
        matches!(self, Self::FailFetch(_))
    }

    fn is_of_commits(self) -> bool {
        matches!(
            self,
            Self::RefuseCommit(_) | Self::LoseCommit | Self::HoldCommit(_)
        )
    }

    fn is_of_steps(self) -> bool {
        matches!(self, Self::RefuseStepLate(_))
    }

    fn is_of_ends_of_steps(self) -> bool {
        self == Self::LoseStepAnswer
    }

    fn is_of_the_cluster(self) -> bool {
        self == Self::HideBrokers
    }
}

/// The action for one request.
#[derive(Debug)]
pub(super) enum Action {
    Forward,
    /// It is forwarded after this delay, and so are all later ones of its connection.
    Hold(Duration),
    /// It is forwarded, and its response is changed.
    Track(ResponseAction),
    /// It is not forwarded, and this is the response, after this delay.
    Respond(Duration, Bytes),
    /// It is not forwarded, and its connection is closed.
    Cut,
}

/// The action for one response.
#[derive(Debug)]
pub(super) enum ResponseAction {
    Late(Duration),
    /// This response is forwarded in its place.
    Replaced(Bytes),
    /// It has this protocol version, and is forwarded without brokers.
    WithoutBrokers(i16),
    /// It has this protocol version, and is forwarded without this topic.
    WithoutTopic(i16, String),
    /// It is a fetch response of this version, and has this error for each partition in place of records.
    FetchError(i16, i16),
    /// It is not forwarded, and its connection is closed.
    Lost,
}

impl Faults {
    /// Creates a set without faults.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self, of: &str, what: FaultKind, times: u32) {
        let mut state = self.lock();
        let same = |planned: &PlannedFault| {
            planned.of == of
                && std::mem::discriminant(&planned.what) == std::mem::discriminant(&what)
        };
        state.planned.retain(|planned| !same(planned));
        if times > 0 {
            let of = of.to_owned();
            state.planned.push(PlannedFault { of, what, times });
        }
    }

    /// Closes the connection of the next `times` requests that would store records of the topic, without
    /// forwarding them. `u32::MAX` means always, 0 ends it.
    pub fn cut_sends(&self, topic: &str, times: u32) {
        self.plan(topic, FaultKind::CutSend, times);
    }

    /// Like [`cut_sends`](Self::cut_sends), but they get the response of a broker with too few in-sync
    /// replicas.
    pub fn refuse_sends(&self, topic: &str, times: u32) {
        self.plan(topic, FaultKind::RefuseSend, times);
    }

    /// Like [`cut_sends`](Self::cut_sends), after the broker has stored the records.
    pub fn lose_send_responses(&self, topic: &str, times: u32) {
        self.plan(topic, FaultKind::LoseAnswer, times);
    }

    /// Like [`lose_send_responses`](Self::lose_send_responses), but they get the response of a
    /// broker that has stored the records and timed out while waiting for replicas.
    pub fn time_out_sends(&self, topic: &str, times: u32) {
        self.plan(topic, FaultKind::TimeOutSend, times);
    }

    /// Delays all responses to requests that store records of the topic from now on. Zero ends it.
    pub fn delay_send_responses(&self, topic: &str, by: Duration) {
        let times = if by.is_zero() { 0 } else { u32::MAX };
        self.plan(topic, FaultKind::DelayAnswer(by), times);
    }

    /// Rejects the next `times` commits of the group as the broker does in a rebalance, without forwarding
    /// them. `u32::MAX` means always, 0 ends it.
    pub fn refuse_commits(&self, group: &str, times: u32) {
        // An error that librdkafka passes on: it retries most others itself.
        let error = ResponseError::RebalanceInProgress;
        self.refuse_commits_with(group, error.code(), times);
    }

    /// Like [`refuse_commits`](Self::refuse_commits), with this error code.
    pub fn refuse_commits_with(&self, group: &str, error: i16, times: u32) {
        self.plan(group, FaultKind::RefuseCommit(error), times);
    }

    /// Like [`refuse_commits`](Self::refuse_commits), but they are acknowledged as stored.
    pub fn lose_commits(&self, group: &str, times: u32) {
        self.plan(group, FaultKind::LoseCommit, times);
    }

    /// Delays the next `times` commits of the group, and the requests that follow them on their
    /// connection. This affects commits outside transactions: those within transactions use other connections.
    pub fn hold_commits(&self, group: &str, by: Duration, times: u32) {
        self.plan(group, FaultKind::HoldCommit(by), times);
    }

    /// Rejects the next commit of the group within a transaction, as the broker does for an unknown
    /// member, and returns the rejection after this delay.
    pub fn refuse_step_late(&self, group: &str, after: Duration) {
        self.plan(group, FaultKind::RefuseStepLate(after), 1);
    }

    /// Closes the connection of the next `times` requests that commit a transaction of a member of the
    /// group, after the broker has committed it. The transactional ids of its members begin with the group's name
    /// and a dot.
    pub fn lose_step_responses(&self, group: &str, times: u32) {
        self.plan(group, FaultKind::LoseStepAnswer, times);
    }

    /// Responds to the next `times` metadata requests of a client like a broker outside its
    /// cluster: there are no brokers, and no partition has a leader. `u32::MAX` means always, 0 ends it.
    pub fn hide_brokers(&self, client: &str, times: u32) {
        self.plan(client, FaultKind::HideBrokers, times);
    }

    /// Responds to the next `times` metadata requests for a topic, or for all topics, like a broker with outdated
    /// metadata: it does not know the topic. `u32::MAX` means always, 0 ends it.
    pub fn hide_topic(&self, topic: &str, times: u32) {
        self.plan(topic, FaultKind::HideTopic, times);
    }

    /// Refuses the next `times` logins of a client, including re-authentication on open connections,
    /// with this message. `u32::MAX` means always, 0 ends it.
    pub fn refuse_logins(&self, client: &str, message: &'static str, times: u32) {
        self.plan(client, FaultKind::RefuseLogin(message), times);
    }

    /// Responds to the next `times` fetches of a client with this error code for each partition, in
    /// place of records. `u32::MAX` means always, 0 ends it.
    pub fn fail_fetches(&self, client: &str, error: i16, times: u32) {
        self.plan(client, FaultKind::FailFetch(error), times);
    }

    /// Returns the number of requests of a topic, a group, or a client that were faulted so far.
    pub fn hits(&self, by_name: &str) -> u64 {
        let state = self.lock();
        state.hits.get(by_name).copied().unwrap_or_default()
    }

    /// Counts one request, and returns its action.
    pub(super) fn action_for(&self, request: &Request) -> io::Result<Action> {
        Ok(match &request.operation {
            Operation::Produce(produce) => {
                let respond =
                    |error: ResponseError| request.produce_response(produce, error.code());
                let topics = || produce.topic_data.iter().map(|topic| topic.name.0.as_str());
                let what = self.hit(
                    |of| topics().any(|topic| topic == of),
                    FaultKind::is_of_sends,
                );
                match what {
                    None => Action::Forward,
                    Some(FaultKind::RefuseSend) => {
                        Action::Respond(NOW, respond(ResponseError::NotEnoughReplicas)?)
                    }
                    Some(FaultKind::TimeOutSend) => {
                        let response = respond(ResponseError::RequestTimedOut)?;
                        Action::Track(ResponseAction::Replaced(response))
                    }
                    Some(FaultKind::LoseAnswer) => Action::Track(ResponseAction::Lost),
                    Some(FaultKind::DelayAnswer(by)) => Action::Track(ResponseAction::Late(by)),
                    Some(_) => Action::Cut,
                }
            }
            Operation::Commit(commit) => {
                let group = commit.group_id.0.as_str();
                match self.hit(|of| of == group, FaultKind::is_of_commits) {
                    None => Action::Forward,
                    Some(FaultKind::LoseCommit) => {
                        Action::Respond(NOW, request.commit_response(commit, 0)?)
                    }
                    Some(FaultKind::HoldCommit(by)) => Action::Hold(by),
                    Some(FaultKind::RefuseCommit(error)) => {
                        Action::Respond(NOW, request.commit_response(commit, error)?)
                    }
                    Some(_) => Action::Forward,
                }
            }
            Operation::Step(step) => {
                let group = step.group_id.0.as_str();
                match self.hit(|of| of == group, FaultKind::is_of_steps) {
                    Some(FaultKind::RefuseStepLate(after)) => {
                        let error = ResponseError::UnknownMemberId.code();
                        Action::Respond(after, request.step_response(step, error)?)
                    }
                    _ => Action::Forward,
                }
            }
            Operation::EndStep(end) if end.committed => {
                let id = end.transactional_id.0.as_str();
                let is_of = |group: &str| {
                    let member = id.strip_prefix(group);
                    member.is_some_and(|member| member.starts_with('.'))
                };
                match self.hit(is_of, FaultKind::is_of_ends_of_steps) {
                    Some(_) => Action::Track(ResponseAction::Lost),
                    None => Action::Forward,
                }
            }
            Operation::Metadata(metadata) => {
                let (client, version) = (request.client(), request.version());
                let asks_for = |name: &str| {
                    let asked = metadata.topics.as_ref();
                    asked.is_none_or(|topics| {
                        let mut names = topics.iter().filter_map(|topic| topic.name.as_ref());
                        names.any(|topic| &*topic.0 == name)
                    })
                };
                if let Some(topic) = self.hit_of(asks_for, FaultKind::is_of_topics) {
                    return Ok(Action::Track(ResponseAction::WithoutTopic(version, topic)));
                }
                match self.hit(|of| of == client, FaultKind::is_of_the_cluster) {
                    Some(_) => Action::Track(ResponseAction::WithoutBrokers(version)),
                    None => Action::Forward,
                }
            }
            Operation::Login => {
                let client = request.client();
                match self.hit(|of| of == client, FaultKind::is_of_logins) {
                    // The broker gets it, so that this response follows the responses to earlier requests.
                    Some(FaultKind::RefuseLogin(message)) => {
                        let refused = request.refused_login(message)?;
                        Action::Track(ResponseAction::Replaced(refused))
                    }
                    _ => Action::Forward,
                }
            }
            Operation::Fetch => {
                let client = request.client();
                match self.hit(|of| of == client, FaultKind::is_of_fetches) {
                    Some(FaultKind::FailFetch(error)) => {
                        Action::Track(ResponseAction::FetchError(request.version(), error))
                    }
                    _ => Action::Forward,
                }
            }
            Operation::EndStep(_) | Operation::Other => Action::Forward,
        })
    }

    fn hit(
        &self,
        concerns: impl Fn(&str) -> bool,
        wanted: fn(FaultKind) -> bool,
    ) -> Option<FaultKind> {
        self.strike(concerns, wanted).map(|(_, what)| what)
    }

    /// Like [`hit`](Self::hit), but returns the name of the fault's target.
    fn hit_of(
        &self,
        concerns: impl Fn(&str) -> bool,
        wanted: fn(FaultKind) -> bool,
    ) -> Option<String> {
        self.strike(concerns, wanted).map(|(of, _)| of)
    }

    fn strike(
        &self,
        concerns: impl Fn(&str) -> bool,
        wanted: fn(FaultKind) -> bool,
    ) -> Option<(String, FaultKind)> {
        let mut state = self.lock();
        let planned = state.planned.iter_mut();
        let mut planned = planned.filter(|p| p.times > 0 && wanted(p.what) && concerns(&p.of));
        let hit = planned.next()?;
        hit.times -= u32::from(hit.times < u32::MAX);
        let hit = (hit.of.clone(), hit.what);
        *state.hits.entry(hit.0.clone()).or_default() += 1;
        Some(hit)
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{ApiKey, EndTxnRequest, RequestHeader, TransactionalId};
    use kafka_protocol::protocol::{HeaderVersion, StrBytes};

    use super::*;
    use crate::kafka::frame;

    fn end_of_step(id: &str, committed: bool) -> Request {
        const VERSION: i16 = 1;
        let header = RequestHeader::default()
            .with_request_api_key(ApiKey::EndTxn as i16)
            .with_request_api_version(VERSION);
        let id = TransactionalId(StrBytes::from_string(id.to_owned()));
        let end = EndTxnRequest::default()
            .with_transactional_id(id)
            .with_committed(committed);
        let header_version = EndTxnRequest::header_version(VERSION);
        let frame = frame::of((&header, header_version), (&end, VERSION));
        Request::parse(&frame.unwrap()).unwrap()
    }

    #[test]
    fn a_step_loses_its_response_only_when_a_member_of_the_group_commits_it() {
        let faults = Faults::new();
        faults.lose_step_responses("cars", 1);
        let is_lost = |id, committed| {
            let action = faults.action_for(&end_of_step(id, committed)).unwrap();
            matches!(action, Action::Track(ResponseAction::Lost))
        };
        assert!(!is_lost("cars-2.member", true));
        assert!(!is_lost("cars.member", false));
        assert!(is_lost("cars.member", true));
        assert!(!is_lost("cars.member", true));
        assert_eq!(faults.hits("cars"), 1);
    }

    #[test]
    fn a_fault_strikes_as_often_as_was_asked() {
        let faults = Faults::new();
        let hit = || faults.hit(|of| of == "cars", |_| true);
        faults.cut_sends("cars", 2);
        assert_eq!(
            [hit(), hit(), hit()],
            [Some(FaultKind::CutSend), Some(FaultKind::CutSend), None]
        );
        faults.cut_sends("cars", u32::MAX);
        assert!((0..10).all(|_| hit().is_some()));
        faults.cut_sends("cars", 0);
        assert_eq!(hit(), None);
        assert_eq!((faults.hits("cars"), faults.hits("bikes")), (12, 0));
    }
}
