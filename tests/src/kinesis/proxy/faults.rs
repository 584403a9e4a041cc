//! The faults that a proxy injects into requests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::request::{Operation, Request, Service};
use super::response::Refusal;

/// The faults of one proxy. Clones share them.
#[derive(Debug, Clone)]
pub struct Faults {
    state: Arc<Mutex<State>>,
    /// The names of streams whose subscriptions are cut.
    cuts: broadcast::Sender<String>,
}

#[derive(Debug, Default)]
struct State {
    planned: Vec<PlannedFault>,
    away: Vec<Outage>,
    /// Clients whose credentials have expired.
    expired: Vec<Outage>,
    flaky: Vec<Flaky>,
    /// The streams that distribute records themselves.
    distributed: BTreeSet<String>,
    /// The number of hits of each stream, table and client.
    hits: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct PlannedFault {
    /// A stream or a table.
    of: String,
    what: FaultKind,
    times: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum FaultKind {
    CutSend,
    ThrottleSend,
    /// The key; `None` means any.
    FailRecord(Option<String>),
    ThrottleRecord,
    LoseAnswer,
    FailStored,
    DelayAnswer(Duration),
    RefuseCheckpoint,
    LoseCheckpointAnswer,
    ThrottleTable,
    MuteSubscription,
}

/// A client that is cut off.
#[derive(Debug)]
struct Outage {
    begins: String,
    ends: String,
    from: Service,
    until: Instant,
}

/// Clients whose requests fail at this rate, in one of several ways.
#[derive(Debug)]
struct Flaky {
    begins: String,
    one_in: u32,
    chance: Rng,
    until: Instant,
}

/// The action for one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Passed,
    /// It is forwarded, and the response is delayed.
    Late(Duration),
    /// It is forwarded, and its connection is closed in place of a response.
    AnswerLost,
    /// It is forwarded, and the response has an unknown result for each record.
    Doubtful,
    /// These of its records are not forwarded, and fail with these errors.
    Without(Vec<Option<Refusal>>),
    /// It is not forwarded, and fails with this error.
    Refused(Refusal),
    /// It is not forwarded, and its connection is closed.
    Cut,
    /// It is not forwarded, and the response is a header without an end.
    Mute,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            cuts: broadcast::channel(64).0,
        }
    }
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans the next `times` faults for this name. They replace those planned before. `u32::MAX` means
    /// always, 0 ends it.
    fn plan(&self, of: &str, what: FaultKind, times: u32) {
        let same = |planned: &PlannedFault| {
            let key = |what: &FaultKind| match what {
                FaultKind::FailRecord(key) => key.clone(),
                _ => None,
            };
            let kind = std::mem::discriminant::<FaultKind>;
            planned.of == of
                && kind(&planned.what) == kind(&what)
                && key(&planned.what) == key(&what)
        };
        let mut state = self.lock();
        state.planned.retain(|planned| !same(planned));
        if times > 0 {
            let of = of.to_owned();
            state.planned.push(PlannedFault { of, what, times });
        }
    }

    /// Closes the connection of the next `times` requests that would store records of the stream, without
    /// forwarding them. `u32::MAX` means always, 0 ends it, here and below.
    pub fn cut_sends(&self, stream: &str, times: u32) {
        self.plan(stream, FaultKind::CutSend, times);
    }

    /// Like [`cut_sends`](Self::cut_sends), but they get the response of a stream that is over its
    /// limits.
    pub fn throttle_sends(&self, stream: &str, times: u32) {
        self.plan(stream, FaultKind::ThrottleSend, times);
    }

    /// Fails the next `times` records that would be stored, of this key or of any; the others of their
    /// requests are stored. Without a key, every other record of a request fails, unless all fail forever,
    /// so that stored records lie between failed ones.
    pub fn fail_records(&self, stream: &str, key: Option<&str>, times: u32) {
        self.plan(stream, FaultKind::FailRecord(key.map(str::to_owned)), times);
    }

    /// Like [`fail_records`](Self::fail_records) for any key, but with the error of a shard that is over its limits.
    pub fn throttle_records(&self, stream: &str, times: u32) {
        self.plan(stream, FaultKind::ThrottleRecord, times);
    }

    /// Like [`cut_sends`](Self::cut_sends), after Kinesis has stored the records.
    pub fn lose_send_responses(&self, stream: &str, times: u32) {
        self.plan(stream, FaultKind::LoseAnswer, times);
    }

    /// Like [`lose_send_responses`](Self::lose_send_responses), but all records get a failure of the service that does
    /// not show whether they were stored.
    pub fn fail_stored_sends(&self, stream: &str, times: u32) {
        self.plan(stream, FaultKind::FailStored, times);
    }

    /// Delays all responses to requests that store records of the stream from now on. Zero ends it.
    pub fn delay_send_responses(&self, stream: &str, by: Duration) {
        let times = if by.is_zero() { 0 } else { u32::MAX };
        self.plan(stream, FaultKind::DelayAnswer(by), times);
    }

    /// Rejects the next `times` checkpoint writes to the table, without forwarding them.
    pub fn refuse_checkpoints(&self, table: &str, times: u32) {
        self.plan(table, FaultKind::RefuseCheckpoint, times);
    }

    /// Closes the connection of the next `times` checkpoint writes to the table, after DynamoDB has
    /// stored them.
    pub fn lose_checkpoint_responses(&self, table: &str, times: u32) {
        self.plan(table, FaultKind::LoseCheckpointAnswer, times);
    }

    /// Throttles the next `times` requests of the table.
    pub fn throttle_table(&self, table: &str, times: u32) {
        self.plan(table, FaultKind::ThrottleTable, times);
    }

    /// Closes the connections to a service of clients whose name has this prefix and suffix, and each new one
    /// at its first request.
    pub fn cut_off(&self, begins: &str, ends: &str, service: Service, duration: Duration) {
        self.lock().away.push(Outage {
            begins: begins.to_owned(),
            ends: ends.to_owned(),
            from: service,
            until: Instant::now() + duration,
        });
    }

    /// Rejects the credentials of clients whose name has this prefix, as expired, for `duration`.
    pub fn expire_credentials(&self, begins: &str, service: Service, duration: Duration) {
        self.lock().expired.push(Outage {
            begins: begins.to_owned(),
            ends: String::new(),
            from: service,
            until: Instant::now() + duration,
        });
    }

    /// Accepts the next `times` subscriptions to the stream, and sends nothing for them.
    pub fn mute_subscriptions(&self, stream: &str, times: u32) {
        self.plan(stream, FaultKind::MuteSubscription, times);
    }

    /// Makes a stream distribute its records itself from now on: they are stored in any shard, and its description says so.
    pub fn distribute_records(&self, stream: &str) {
        self.lock().distributed.insert(stream.to_owned());
    }

    /// Fails one in `one_in` requests of clients with this name prefix, for `duration`: the connection is closed
    /// before or after forwarding, or the response is an error of the service. The seed decides which, and how.
    pub fn make_flaky(&self, begins: &str, one_in: u32, seed: u64, duration: Duration) {
        self.lock().flaky.push(Flaky {
            begins: begins.to_owned(),
            one_in,
            chance: Rng::with_seed(seed),
            until: Instant::now() + duration,
        });
    }

    /// Cuts every subscription to the stream in the middle of an event.
    pub fn cut_subscriptions(&self, stream: &str) {
        // There may be no receivers.
        let _ = self.cuts.send(stream.to_owned());
    }

    /// Returns the number of requests to store records of a stream, requests to a table, or subscriptions to a
    /// stream that were faulted so far.
    pub fn hits(&self, by_name: &str) -> u64 {
        let state = self.lock();
        state.hits.get(by_name).copied().unwrap_or_default()
    }

    /// Returns the number of faulted requests of clients whose name has this prefix and suffix.
    pub fn client_hits(&self, begins: &str, ends: &str) -> u64 {
        let state = self.lock();
        let concerned = state
            .hits
            .iter()
            .filter(|(name, _)| name.starts_with(begins) && name.ends_with(ends));
        concerned.map(|(_, times)| times).sum()
    }

    pub(super) fn record_hit(&self, name: &str) {
        self.lock().record_hit(name);
    }

    /// Announces subscriptions to cut.
    pub(super) fn cuts(&self) -> broadcast::Receiver<String> {
        self.cuts.subscribe()
    }

    /// Returns whether the client of a request is cut off from the service.
    pub(super) fn is_cut_off(&self, client: &str, service: Service) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        state.away.retain(|away| away.until > now);
        let is_cut_off = state.away.iter().any(|away| {
            away.from == service && client.starts_with(&away.begins) && client.ends_with(&away.ends)
        });
        if is_cut_off {
            state.record_hit(client);
        }
        is_cut_off
    }

    /// Returns whether a stream distributes its records itself.
    pub(super) fn is_distributed(&self, stream: &str) -> bool {
        self.lock().distributed.contains(stream)
    }

    /// Counts one request, and returns its action.
    pub(super) fn action_for(&self, request: &Request) -> Action {
        let mut state = self.lock();
        if state.has_expired(request) {
            return Action::Refused(Refusal::ExpiredToken);
        }
        if let Some(fate) = state.flaky_action(request) {
            return fate;
        }
        match &request.operation {
            Operation::PutRecords { stream } => state.action_for_batch(stream, &request.keys()),
            Operation::PutRecord { stream } => state.action_for_send(stream),
            Operation::Checkpoint { table } => state.action_for_table(table, true),
            Operation::Table { table } => state.action_for_table(table, false),
            Operation::Subscription(shard) => {
                let is_muted = |what: &FaultKind| *what == FaultKind::MuteSubscription;
                match state.hit(&shard.stream, is_muted) {
                    Some(_) => Action::Mute,
                    None => Action::Passed,
                }
            }
            _ => Action::Passed,
        }
    }
}

impl State {
    fn record_hit(&mut self, name: &str) {
        *self.hits.entry(name.to_owned()).or_default() += 1;
    }

    /// Returns the next of these faults that is planned for this name.
    fn hit(&mut self, name: &str, wanted: impl Fn(&FaultKind) -> bool) -> Option<FaultKind> {
        let mut planned = self.planned.iter_mut();
        let hit = planned
            .find(|planned| planned.times > 0 && planned.of == name && wanted(&planned.what))?;
        hit.times -= u32::from(hit.times < u32::MAX);
        let what = hit.what.clone();
        self.record_hit(name);
        Some(what)
    }

    /// Returns whether the credentials of the client have expired.
    fn has_expired(&mut self, request: &Request) -> bool {
        let now = Instant::now();
        self.expired.retain(|expired| expired.until > now);
        let has_expired = self.expired.iter().any(|expired| {
            expired.from == request.service && request.client.starts_with(&expired.begins)
        });
        if has_expired {
            self.record_hit(&request.client);
        }
        has_expired
    }

    fn flaky_action(&mut self, request: &Request) -> Option<Action> {
        let now = Instant::now();
        self.flaky.retain(|flaky| flaky.until > now);
        let mut flaky = self.flaky.iter_mut();
        let flaky = flaky.find(|flaky| request.client.starts_with(&flaky.begins))?;
        if flaky.chance.u32(..flaky.one_in) > 0 {
            return None;
        }
        let fate = match flaky.chance.u8(..3) {
            0 => Action::Cut,
            // The response to a subscription has no end to wait for.
            1 if !matches!(request.operation, Operation::Subscription(_)) => Action::AnswerLost,
            _ => Action::Refused(Refusal::Internal),
        };
        self.record_hit(&request.client);
        Some(fate)
    }

    fn action_for_send(&mut self, stream: &str) -> Action {
        let whole = |what: &FaultKind| {
            matches!(
                what,
                FaultKind::CutSend
                    | FaultKind::ThrottleSend
                    | FaultKind::LoseAnswer
                    | FaultKind::FailStored
            )
        };
        match self.hit(stream, whole) {
            Some(FaultKind::CutSend) => return Action::Cut,
            Some(FaultKind::ThrottleSend) => return Action::Refused(Refusal::Throttled),
            Some(FaultKind::LoseAnswer) => return Action::AnswerLost,
            Some(_) => return Action::Doubtful,
            None => {}
        }
        match self.hit(stream, |what| matches!(what, FaultKind::DelayAnswer(_))) {
            Some(FaultKind::DelayAnswer(by)) => Action::Late(by),
            _ => Action::Passed,
        }
    }

    fn action_for_batch(&mut self, stream: &str, keys: &[&str]) -> Action {
        let of_records = |planned: &PlannedFault| {
            planned.of == stream
                && matches!(
                    planned.what,
                    FaultKind::FailRecord(_) | FaultKind::ThrottleRecord
                )
        };
        if !self.planned.iter().any(of_records) {
            return self.action_for_send(stream);
        }
        let for_ever = self
            .planned
            .iter()
            .any(|p| of_records(p) && p.times == u32::MAX);
        let failed: Vec<_> = keys
            .iter()
            .enumerate()
            .map(|(place, key)| {
                let any = for_ever || keys.len() == 1 || place % 2 == 1;
                let hit = self.hit(stream, |what| match what {
                    FaultKind::FailRecord(Some(of)) => of == key,
                    FaultKind::FailRecord(None) | FaultKind::ThrottleRecord => any,
                    _ => false,
                });
                hit.map(|what| match what {
                    FaultKind::ThrottleRecord => Refusal::Throttled,
                    _ => Refusal::Internal,
                })
            })
            .collect();
        match failed.iter().any(Option::is_some) {
            true => Action::Without(failed),
            false => self.action_for_send(stream),
        }
    }

    fn action_for_table(&mut self, table: &str, is_checkpoint: bool) -> Action {
        let hit = self.hit(table, |what| match what {
            FaultKind::RefuseCheckpoint | FaultKind::LoseCheckpointAnswer => is_checkpoint,
            what => *what == FaultKind::ThrottleTable,
        });
        match hit {
            None => Action::Passed,
            Some(FaultKind::RefuseCheckpoint) => Action::Refused(Refusal::Internal),
            Some(FaultKind::LoseCheckpointAnswer) => Action::AnswerLost,
            Some(_) => Action::Refused(Refusal::Throttled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_as_often_as_was_asked() {
        let faults = Faults::default();
        let action_for = |name: &str| faults.lock().action_for_send(name);
        faults.cut_sends("cars", 2);
        assert_eq!(
            ["cars", "bikes", "cars", "cars"].map(action_for),
            [Action::Cut, Action::Passed, Action::Cut, Action::Passed]
        );
        faults.cut_sends("cars", u32::MAX);
        assert!((0..10).all(|_| action_for("cars") == Action::Cut));
        faults.cut_sends("cars", 0);
        assert_eq!(action_for("cars"), Action::Passed);
        assert_eq!((faults.hits("cars"), faults.hits("bikes")), (12, 0));
    }

    #[test]
    fn records_fail_between_others() {
        let faults = Faults::default();
        let action_for = |keys: &[&str]| faults.lock().action_for_batch("cars", keys);
        let failed = |places: &[bool]| {
            let failed = places
                .iter()
                .map(|failed| failed.then_some(Refusal::Internal));
            Action::Without(failed.collect())
        };
        faults.fail_records("cars", None, 3);
        assert_eq!(
            action_for(&["a", "b", "a", "b"]),
            failed(&[false, true, false, true])
        );
        assert_eq!(action_for(&["a"]), failed(&[true]));
        assert_eq!(action_for(&["a", "b"]), Action::Passed);

        faults.fail_records("cars", Some("b"), 1);
        faults.fail_records("cars", Some("c"), u32::MAX);
        assert_eq!(action_for(&["a"]), Action::Passed);
        assert_eq!(action_for(&["b", "b", "c"]), failed(&[true, false, true]));
        assert_eq!(action_for(&["c", "b"]), failed(&[true, false]));
        assert_eq!(faults.hits("cars"), 6);
    }

    #[test]
    fn checkpoints_are_told_from_other_requests_of_a_table() {
        let faults = Faults::default();
        let action_for = |is_checkpoint| faults.lock().action_for_table("alerts", is_checkpoint);
        faults.refuse_checkpoints("alerts", 1);
        let met = [false, true, true].map(action_for);
        assert_eq!(
            met,
            [
                Action::Passed,
                Action::Refused(Refusal::Internal),
                Action::Passed
            ]
        );
        faults.throttle_table("alerts", 2);
        let met = [false, true, true].map(action_for);
        let throttled = || Action::Refused(Refusal::Throttled);
        assert_eq!(met, [throttled(), throttled(), Action::Passed]);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_are_away_for_a_while() {
        let faults = Faults::default();
        let second = Duration::from_secs(1);
        faults.cut_off("client-1-", ".b", Service::DynamoDb, second);
        let cut_off = |client, service| faults.is_cut_off(client, service);
        for there in ["client-1-0.a", "client-10-0.b", "client-1-0"] {
            assert!(!cut_off(there, Service::DynamoDb), "{there}");
        }
        let away = "client-1-7.b";
        assert!(cut_off(away, Service::DynamoDb) && !cut_off(away, Service::Kinesis));
        tokio::time::sleep(second).await;
        assert!(!cut_off(away, Service::DynamoDb));
        let hits = |ends| faults.client_hits("client-1-", ends);
        assert_eq!((hits(".a"), hits(".b"), hits("")), (0, 1, 1));
    }
}
