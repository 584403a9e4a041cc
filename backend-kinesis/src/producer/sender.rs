//! The task of a producer: builds requests from the records that the accumulator releases, and handles the responses.
//!
//! It ends when the producer is dropped, and its requests end with it.

use std::collections::HashMap;
use std::sync::Arc;

use millstream_core::telemetry::{Causes, event};
use millstream_core::{Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::accumulator::{RecordAccumulator, RequestLimits};
use super::calls::{Calls, Submission};
use super::refresh::Refresh;
use super::request::PutRequest;
use super::request_size::RequestSize;
use super::shard_map::{Prediction, ShardMap};
use super::transport::{ShardPosition, Transport};
use crate::stream::Shard;

/// The maximum number of calls that are received at a time.
const MAX_SUBMISSIONS: usize = 64;

type Response = Result<Vec<Result<ShardPosition>>>;

pub(super) struct Sender<T, A: RecordAccumulator> {
    stream: Arc<str>,
    transport: Arc<T>,
    accumulator: A,
    calls: Calls,
    /// Holds only submissions whose callers wait.
    submissions: mpsc::UnboundedReceiver<Submission>,
    /// The maximum number of requests in flight.
    max_requests: usize,
    request_size: RequestSize,
    requests: JoinSet<Response>,
    in_flight: HashMap<Id, PutRequest<A::EntryTickets>>,
    /// Halves of a request that was rejected as a whole.
    halves: Vec<PutRequest<A::EntryTickets>>,
    listing: JoinSet<Result<Vec<Shard>>>,
    refresh: Refresh,
}

impl<T: Transport, A: RecordAccumulator> Sender<T, A> {
    pub(super) fn new(
        stream: Arc<str>,
        transport: Arc<T>,
        accumulator: A,
        submissions: mpsc::UnboundedReceiver<Submission>,
        max_requests: usize,
    ) -> Self {
        Self {
            calls: Calls::new(stream.clone()),
            stream,
            transport,
            accumulator,
            submissions,
            max_requests,
            request_size: RequestSize::new(),
            requests: JoinSet::new(),
            in_flight: HashMap::new(),
            halves: Vec::new(),
            listing: JoinSet::new(),
            refresh: Refresh::new(Instant::now()),
        }
    }

    pub(super) async fn run(mut self) {
        let mut received = Vec::new();
        loop {
            let now = Instant::now();
            self.calls.expire(now);
            self.start_listing(now);
            self.start_requests(now);
            let next_wakeup = self.next_wakeup();
            tokio::select! {
                biased;
                Some(ended) = self.requests.join_next_with_id() => self.on_response(ended),
                Some(ended) = self.listing.join_next() => self.remap(ended),
                count = self.submissions.recv_many(&mut received, MAX_SUBMISSIONS) => {
                    if count == 0 {
                        return;
                    }
                    let now = Instant::now();
                    for submission in received.drain(..) {
                        for ticket in self.calls.open(submission) {
                            self.accumulator.push(ticket, &self.calls, now);
                        }
                    }
                }
                () = sleep_until_or_forever(next_wakeup) => {}
            }
        }
    }

    /// Returns when there is something to do, if nothing happens before.
    fn next_wakeup(&self) -> Option<Instant> {
        let accumulator = self
            .accumulator
            .next_wakeup()
            .filter(|_| self.requests.len() < self.max_requests);
        let listing = self.refresh.due().filter(|_| !self.calls.is_empty());
        let deadline = self.calls.next_deadline();
        [accumulator, listing, deadline].into_iter().flatten().min()
    }

    fn start_requests(&mut self, now: Instant) {
        while self.requests.len() < self.max_requests {
            let request = match self.halves.pop() {
                Some(half) => half,
                None => {
                    let limits = RequestLimits {
                        bytes: self.request_size.get(),
                        requests: self.max_requests - self.requests.len(),
                    };
                    self.accumulator.drain(&mut self.calls, limits, now)
                }
            };
            if request.tickets.is_empty() {
                return;
            }
            let (transport, entries) = (self.transport.clone(), request.entries.clone());
            let task = self
                .requests
                .spawn(async move { transport.put(entries).await });
            self.in_flight.insert(task.id(), request);
        }
    }

    fn on_response(&mut self, ended: Result<(Id, Response), JoinError>) {
        let now = Instant::now();
        let (id, response) = ended.unwrap_or_else(|panic| {
            let error = self.error("the request panicked");
            (panic.id(), Err(error.with_source(panic)))
        });
        let request = self
            .in_flight
            .remove(&id)
            .expect("each task has its request");
        match response {
            Ok(results) => {
                self.request_size.succeeded();
                self.on_results(request, results, now);
            }
            Err(error) if error.is_retryable() => {
                if error.kind() == ErrorKind::Timeout {
                    self.request_size.timed_out();
                }
                let tickets = request.tickets.into_iter();
                self.retry(
                    tickets.map(|tickets| (tickets, error.clone())).collect(),
                    now,
                );
            }
            Err(error) => self.on_rejected(request, &error, now),
        }
    }

    fn on_results(
        &mut self,
        request: PutRequest<A::EntryTickets>,
        results: Vec<Result<ShardPosition>>,
        now: Instant,
    ) {
        let missing = || Err(self.error("the response does not have a result for each record"));
        let results: Vec<_> = results
            .into_iter()
            .chain(std::iter::repeat_with(missing))
            .take(request.tickets.len())
            .collect();
        let mut retryable = Vec::new();
        for (tickets, result) in request.tickets.into_iter().zip(results) {
            match result {
                Ok(stored) => {
                    let calls = &mut self.calls;
                    let prediction = self.accumulator.stored(tickets, stored, calls, now);
                    if prediction == Prediction::Wrong {
                        self.refresh.want();
                    }
                }
                Err(error) if error.is_retryable() => retryable.push((tickets, error)),
                Err(error) => self.accumulator.fail(tickets, error, &mut self.calls, now),
            }
        }
        self.retry(retryable, now);
    }

    /// Handles entries that are not stored, or not known to be.
    fn retry(&mut self, failed: Vec<(A::EntryTickets, Error)>, now: Instant) {
        let Some((_, error)) = failed.first() else {
            return;
        };
        let are_throttled = failed
            .iter()
            .filter(|(_, e)| e.kind() == ErrorKind::Throttled);
        event!(
            debug, "millstream.kinesis.producer.retried",
            stream = %self.stream, entries = failed.len(), throttled = are_throttled.count(),
            error = %Causes(error),
            "entries of a request failed and are tried again"
        );
        self.accumulator.retry(failed, &mut self.calls, now);
    }

    /// Handles a request that was rejected as a whole. One entry may be the reason. It is found by bisection, so
    /// the others do not fail with it.
    fn on_rejected(&mut self, request: PutRequest<A::EntryTickets>, error: &Error, now: Instant) {
        let is_of_one = matches!(error.kind(), ErrorKind::Invalid | ErrorKind::TooLarge);
        if is_of_one && request.tickets.len() > 1 {
            return self.halves.extend(request.split());
        }
        if error.kind() == ErrorKind::NotFound {
            // A new stream of that name may exist soon.
            self.refresh.want();
        }
        for tickets in request.tickets {
            self.accumulator
                .fail(tickets, error.clone(), &mut self.calls, now);
        }
    }

    fn start_listing(&mut self, now: Instant) {
        let is_due = self.refresh.due().is_some_and(|due| due <= now);
        if is_due && !self.calls.is_empty() {
            self.refresh.begin(now);
            let transport = self.transport.clone();
            self.listing.spawn(async move { transport.shards().await });
        }
    }

    fn remap(&mut self, ended: Result<Result<Vec<Shard>>, JoinError>) {
        let now = Instant::now();
        let listed = ended.unwrap_or_else(|panic| {
            let error = self.error("listing the shards panicked");
            Err(error.with_source(panic))
        });
        let map = listed.map(|shards| ShardMap::new(self.stream.clone(), &shards));
        let has_changed = match map {
            Ok(Some(map)) => {
                let has_changed = !self.accumulator.map().has_same_open_shards(&map);
                self.accumulator.remap(map, &mut self.calls, now);
                has_changed
            }
            // Without an open shard, the stream is being deleted or created. The results of requests show which.
            Ok(None) => false,
            Err(error) => {
                event!(
                    debug, "millstream.kinesis.producer.unlisted",
                    stream = %self.stream, error = %Causes(&error),
                    "the shards could not be listed"
                );
                false
            }
        };
        self.refresh.end(has_changed);
    }

    fn error(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::Unavailable, "send", message).with_stream(self.stream.clone())
    }
}

/// Sleeps until `when`, or forever.
async fn sleep_until_or_forever(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
