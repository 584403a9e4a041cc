//! The task of a producer: builds requests from the records that its lanes release, and handles the responses.
//!
//! It ends when the producer is dropped, and its requests end with it.

use std::collections::HashMap;
use std::sync::Arc;

use millstream_core::telemetry::{Causes, event};
use millstream_core::{Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::calls::{Calls, Submission};
use super::lanes::{Allowed, Batch, Lanes};
use super::refresh::Refresh;
use super::request_size::RequestSize;
use super::shard_map::ShardMap;
use super::transport::{Landed, Transport};
use crate::stream::Shard;

/// The maximum number of calls that are received at a time.
const AT_ONCE: usize = 64;

type Answer = Result<Vec<Result<Landed>>>;

pub(super) struct Owner<T, L: Lanes> {
    stream: Arc<str>,
    transport: Arc<T>,
    lanes: L,
    calls: Calls,
    /// Holds only submissions whose callers wait.
    inbox: mpsc::UnboundedReceiver<Submission>,
    /// The maximum number of requests in flight.
    most: usize,
    size: RequestSize,
    requests: JoinSet<Answer>,
    flying: HashMap<Id, Batch<L::Load>>,
    /// Halves of a request that was rejected as a whole.
    halves: Vec<Batch<L::Load>>,
    listing: JoinSet<Result<Vec<Shard>>>,
    refresh: Refresh,
}

impl<T: Transport, L: Lanes> Owner<T, L> {
    pub(super) fn new(
        stream: Arc<str>,
        transport: Arc<T>,
        lanes: L,
        inbox: mpsc::UnboundedReceiver<Submission>,
        most: usize,
    ) -> Self {
        Self {
            calls: Calls::new(stream.clone()),
            stream,
            transport,
            lanes,
            inbox,
            most,
            size: RequestSize::new(),
            requests: JoinSet::new(),
            flying: HashMap::new(),
            halves: Vec::new(),
            listing: JoinSet::new(),
            refresh: Refresh::new(Instant::now()),
        }
    }

    pub(super) async fn run(mut self) {
        let mut submissions = Vec::new();
        loop {
            let now = Instant::now();
            self.calls.expire(now);
            self.start_listing(now);
            self.start_requests(now);
            let wakes = self.wakes();
            tokio::select! {
                biased;
                Some(ended) = self.requests.join_next_with_id() => self.settle(ended),
                Some(ended) = self.listing.join_next() => self.remap(ended),
                taken = self.inbox.recv_many(&mut submissions, AT_ONCE) => {
                    if taken == 0 {
                        return;
                    }
                    let now = Instant::now();
                    for submission in submissions.drain(..) {
                        for ticket in self.calls.open(submission) {
                            self.lanes.push(ticket, &self.calls, now);
                        }
                    }
                }
                () = at(wakes) => {}
            }
        }
    }

    /// Returns when there is something to do, if nothing happens before.
    fn wakes(&self) -> Option<Instant> {
        let lanes = self
            .lanes
            .wakes()
            .filter(|_| self.requests.len() < self.most);
        let listing = self.refresh.due().filter(|_| !self.calls.is_empty());
        let deadline = self.calls.next_deadline();
        [lanes, listing, deadline].into_iter().flatten().min()
    }

    fn start_requests(&mut self, now: Instant) {
        while self.requests.len() < self.most {
            let batch = match self.halves.pop() {
                Some(half) => half,
                None => {
                    let allowed = Allowed {
                        bytes: self.size.get(),
                        requests: self.most - self.requests.len(),
                    };
                    self.lanes.take(&mut self.calls, allowed, now)
                }
            };
            if batch.loads.is_empty() {
                return;
            }
            let (transport, entries) = (self.transport.clone(), batch.entries.clone());
            let request = self
                .requests
                .spawn(async move { transport.put(entries).await });
            self.flying.insert(request.id(), batch);
        }
    }

    fn settle(&mut self, ended: Result<(Id, Answer), JoinError>) {
        let now = Instant::now();
        let (id, answer) = ended.unwrap_or_else(|panic| {
            let error = self.error("the request panicked");
            (panic.id(), Err(error.with_source(panic)))
        });
        let batch = self.flying.remove(&id).expect("each request has its batch");
        match answer {
            Ok(answers) => {
                self.size.succeeded();
                self.settle_each(batch, answers, now);
            }
            Err(error) if error.is_retryable() => {
                if error.kind() == ErrorKind::Timeout {
                    self.size.timed_out();
                }
                let loads = batch.loads.into_iter();
                self.again(loads.map(|load| (load, error.clone())).collect(), now);
            }
            Err(error) => self.refuse(batch, &error, now),
        }
    }

    fn settle_each(&mut self, batch: Batch<L::Load>, answers: Vec<Result<Landed>>, now: Instant) {
        let missing = || Err(self.error("the answer does not tell of all records"));
        let answers: Vec<_> = answers
            .into_iter()
            .chain(std::iter::repeat_with(missing))
            .take(batch.loads.len())
            .collect();
        let mut again = Vec::new();
        for (load, answer) in batch.loads.into_iter().zip(answers) {
            match answer {
                Ok(landed) => {
                    if self.lanes.landed(load, landed, &mut self.calls, now) {
                        self.refresh.want();
                    }
                }
                Err(error) if error.is_retryable() => again.push((load, error)),
                Err(error) => self.lanes.refused(load, error, &mut self.calls, now),
            }
        }
        self.again(again, now);
    }

    /// Handles loads that are not stored, or not known to be.
    fn again(&mut self, failed: Vec<(L::Load, Error)>, now: Instant) {
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
        self.lanes.again(failed, &mut self.calls, now);
    }

    /// Handles a request that was rejected as a whole. One entry may be the reason. It is found by bisection, so
    /// the others do not fail with it.
    fn refuse(&mut self, batch: Batch<L::Load>, error: &Error, now: Instant) {
        let is_of_one = matches!(error.kind(), ErrorKind::Invalid | ErrorKind::TooLarge);
        if is_of_one && batch.loads.len() > 1 {
            return self.halves.extend(batch.split());
        }
        if error.kind() == ErrorKind::NotFound {
            // A new stream of that name may exist soon.
            self.refresh.want();
        }
        for load in batch.loads {
            self.lanes
                .refused(load, error.clone(), &mut self.calls, now);
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
                let has_changed = !self.lanes.map().has_same_open_shards(&map);
                self.lanes.remap(map, &mut self.calls, now);
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

/// Sleeps until then, or forever.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
