//! Enhanced fan-out: repeated calls of SubscribeToShard, each of which pushes records for 5 minutes.
//!
//! The known behavior of [SubscribeToShard] that this relies on: one call per second, for a consumer and a shard; a
//! second call within 5 seconds of a successful one is rejected while the first subscription is active, and a later one
//! replaces it; events arrive every few seconds even without records, so silence means that the other side is gone.
//!
//! [SubscribeToShard]: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SubscribeToShard.html

use std::time::{Duration, SystemTime};

use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind, Position};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::contention::Incident;
use super::output::Done;
use super::shard_reader::{OnPause, ShardReader, Taken};
use super::source::{StartingPosition, SubscribeError, Subscription};
use super::stream_consumer::StreamConsumer;
use super::until::{Stopped, Until};

/// How long to wait for a silent subscription, and how long a subscription may be without a record
/// before the shard is looked up.
pub(super) const SILENCE: Duration = Duration::from_secs(35);

/// The minimum time between two calls.
const LEAST: Duration = Duration::from_secs(1);

/// The minimum time between two requests that confirm pushed records. What is pushed in between is held back.
const BETWEEN: Duration = Duration::from_secs(1);

/// The lifetime of a subscription, after which Kinesis ends it.
const LIFETIME: Duration = Duration::from_secs(300);

/// The minimum lifetime of a reader's first subscription.
const MIN_FIRST: Duration = Duration::from_secs(60);

/// A subscription that ends before this age ends early.
const EARLY: Duration = Duration::from_secs(240);

/// The next step after a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Another,
    /// The shard is closed, and nothing more is pushed.
    Polling,
}

/// The subscriptions of one reader.
#[derive(Debug)]
struct Feed {
    /// The sequence number after which the next one continues. It may not be that of a record, and be ahead of the
    /// last.
    after: Option<Position>,
    /// Since when no record has arrived.
    idle: Instant,
    /// The age at which the next one is replaced, if Kinesis does not end it before.
    replaced_at_age: Option<Duration>,
}

/// Returns a lifetime for the first subscription of a reader. The readers of a member begin together. Without different
/// lifetimes their subscriptions would end together, too, and their new connections would delay one another.
fn first_lifetime() -> Duration {
    LIFETIME - (LIFETIME - MIN_FIRST).mul_f64(fastrand::f64())
}

impl<T: Clone> ShardReader<T> {
    /// Subscribes repeatedly, until the remaining records must be polled.
    pub(super) async fn subscribe(&mut self, consumer: &StreamConsumer) -> Result<Stopped, Done> {
        let mut feed = Feed {
            after: None,
            idle: Instant::now(),
            replaced_at_age: Some(first_lifetime()),
        };
        let mut until = Until::Quiet;
        while let Some(arn) = consumer.arn() {
            self.output.may_ask().await?;
            if feed.after.is_none() {
                // A subscription cannot begin at an iterator.
                self.poll_pinned(until).await?;
            }
            // After a number, the last record does not show whether it is still there.
            let after = feed.after.take().filter(|_| self.cursor.is_confirmed());
            let position = after.map_or_else(|| self.cursor.look(), StartingPosition::After);
            let begun = Instant::now();
            // The call ends with the first event, which no timeout of the AWS SDK covers.
            let subscribing = self.source.subscribe(&arn, &position);
            let subscribed = timeout(self.settings.silence, subscribing).await;
            match subscribed.unwrap_or_else(|_| Err(self.silent().into())) {
                Ok(subscription) => {
                    consumer.accepted();
                    match self.receive(subscription, &mut feed, consumer).await? {
                        Next::Another => {}
                        Next::Polling => return Ok(Stopped::Closed),
                    }
                }
                Err(SubscribeError { error, .. })
                    if error.kind() == ErrorKind::Denied && consumer.has_fallback() =>
                {
                    consumer.refused(&error);
                }
                Err(SubscribeError { error, is_in_use }) => {
                    if is_in_use {
                        self.note_incident(Incident::Rejected, consumer);
                    }
                    self.cursor.refuse(&position, error.kind());
                    if error.is_retryable() {
                        feed.after = after;
                    } else {
                        // Its time may be rejected again and again, since the clocks are far apart.
                        until = Until::Record;
                    }
                    self.on_error(error).await?;
                }
            }
            sleep_until(begun + LEAST).await;
        }
        Ok(Stopped::Refused)
    }

    /// Passes on pushed records until the subscription is over.
    async fn receive(
        &mut self,
        mut subscription: Box<dyn Subscription>,
        feed: &mut Feed,
        consumer: &StreamConsumer,
    ) -> Result<Next, Done> {
        let begun = Instant::now();
        let mut unconfirmed = Vec::new();
        let replace_at = feed.replaced_at_age.take().map(|age| begun + age);
        let is_due = || replace_at.is_some_and(|at| at <= Instant::now());
        loop {
            let asked = SystemTime::now();
            let silent_at = Instant::now() + self.settings.silence;
            let until = replace_at.map_or(silent_at, |at| at.min(silent_at));
            let answer = match timeout_at(until, subscription.next()).await {
                Ok(Ok(Some(answer))) => answer,
                Ok(Ok(None)) => {
                    if begun.elapsed() < EARLY {
                        self.note_incident(Incident::Replaced, consumer);
                    }
                    return self.look_if_idle(feed, consumer).await;
                }
                Ok(Err(SubscribeError { error, is_in_use })) => {
                    if is_in_use {
                        self.note_incident(Incident::Replaced, consumer);
                    }
                    self.on_error(error).await?;
                    return Ok(Next::Another);
                }
                Err(_) if is_due() => return Ok(Next::Another),
                Err(_) => {
                    // Nothing has failed: the next one need not wait.
                    _ = self.silent();
                    return self.look_if_idle(feed, consumer).await;
                }
            };
            if !answer.records.is_empty() {
                feed.idle = Instant::now();
            }
            // Kinesis ends without a number, and an emulator with both a number and children.
            let is_last = answer.next.is_none() || answer.has_children;
            unconfirmed.push((answer, asked, Instant::now()));
            if self.cursor.was_confirmed_within(BETWEEN) && !is_last {
                continue;
            }
            for (answer, asked, arrived) in unconfirmed.drain(..) {
                let after = answer.next.as_deref().and_then(|next| next.parse().ok());
                if self.take(answer, asked, arrived, OnPause::Keep).await? == Taken::Some {
                    feed.after = None;
                    return Ok(Next::Another);
                }
                feed.after = after;
            }
            self.pace.succeeded();
            if is_last {
                self.end().await?;
                return Ok(Next::Another);
            }
            if self.look_if_idle(feed, consumer).await? == Next::Polling {
                return Ok(Next::Polling);
            }
            if is_due() {
                return Ok(Next::Another);
            }
        }
    }

    /// Records that another subscription takes the place of the reader's. Too often, that is reported.
    fn note_incident(&mut self, incident: Incident, consumer: &StreamConsumer) {
        if let Some(incidents) = self.contention.note(incident, Instant::now()) {
            consumer.report_contention(self.settings.partition.id(), incidents);
        }
    }

    /// Reports that a subscription is silent.
    fn silent(&self) -> Error {
        let (stream, partition) = self.names();
        event!(
            warn,
            "millstream.kinesis.fan_out.silent",
            stream,
            partition,
            silent_ms = self.settings.silence.as_millis() as u64,
            "a subscription is silent, and made again"
        );
        let message = format!(
            "a subscription sends nothing for {:?}",
            self.settings.silence
        );
        Error::new(ErrorKind::Timeout, "read", message).with_partition(&self.settings.partition)
    }

    /// Checks whether the shard is closed, if no record arrived for long: not every service that pushes records
    /// reports shard end, but polling always does. All readers of the stream share a list of the shards.
    async fn look_if_idle(
        &mut self,
        feed: &mut Feed,
        consumer: &StreamConsumer,
    ) -> Result<Next, Done> {
        let silence = self.settings.silence;
        if feed.idle.elapsed() < silence {
            return Ok(Next::Another);
        }
        let listed = match consumer.listing.get(&*self.source, silence / 2).await {
            Ok(Some(listed)) => listed,
            Ok(None) => return Ok(Next::Another),
            Err(error) => {
                feed.idle = Instant::now();
                self.on_unlisted(error).await?;
                return Ok(Next::Another);
            }
        };
        // The shard may have been closed since then, so the next list must not be later than if it was the reader's own.
        feed.idle = listed.at;
        let id = self.settings.partition.id();
        let mut shards = listed.shards.iter();
        let is_closed = shards.any(|shard| *shard.id == *id && !shard.open);
        Ok(match is_closed {
            true => Next::Polling,
            false => Next::Another,
        })
    }
}
