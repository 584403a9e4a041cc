//! The thread that polls one member's client: everything that happens to the member comes by here.
//!
//! It never waits for the runtime, for a handler or for a broker's answer. So the client is polled
//! at all times, and neither the session nor the poll interval can run out while handlers work.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use millstream_core::driver::{CheckpointUpdate, Event, JoinOptions};
use millstream_core::{Epoch, Error, ErrorKind, Partition, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio::sync::oneshot;

use super::aide::{Aide, Finding};
use super::bell::Bell;
use super::checkpoint::Vouched;
use super::claims::Claim;
use super::commits::Commits;
use super::context::{Happening, MemberContext, Name};
use super::initial_offsets::{InitialOffsets, Next};
use super::kicker::Kicker;
use super::mailbox::Mailbox;
use super::pulse::Pulse;
use super::questions::Question;
use super::rebalance::Pending;
use super::slots::Slots;
use super::watch::LOOK_EVERY;
use crate::config::Protocol;
use crate::error;
use crate::native::consume::{DataQueue, identity};
use crate::transactions::TransactionalProducer;

/// How long it waits for anything, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The same, as long as the member waits to be let in, which no event tells.
const WAIT_TO_JOIN: Duration = Duration::from_millis(20);

/// The same, while a partition was assigned anew, which no event tells either.
const WAIT_FOR_STRAYED: Duration = Duration::from_millis(200);

/// How long a member that leaves waits for its part in a rebalance, at most.
const LONGEST_TO_FINISH: Duration = Duration::from_secs(2);

/// Steps that wait to be vouched for.
pub(super) type Steps = VecDeque<(Vec<CheckpointUpdate>, oneshot::Sender<Result<Vouched>>)>;

/// What the runtime wants, and what the aide found.
pub(super) enum Command {
    Checkpoint {
        marks: Vec<CheckpointUpdate>,
        reply: oneshot::Sender<Vec<Result<()>>>,
    },
    Release {
        partition: Partition,
        epoch: Epoch,
        reply: oneshot::Sender<Result<()>>,
    },
    Vouch {
        marks: Vec<CheckpointUpdate>,
        reply: oneshot::Sender<Result<Vouched>>,
    },
    /// A step was stored.
    Published(Vec<CheckpointUpdate>),
    /// The broker did not know the member any more that had had so many assignments. It may have
    /// joined anew since.
    Gone {
        assignments: u64,
    },
    Pause(Partition, Epoch),
    Resume(Partition, Epoch),
    /// The member goes, in good order or not.
    Leave(Option<oneshot::Sender<()>>),
    Found(Finding),
    #[cfg(test)]
    Panic,
}

pub(super) struct Poller {
    pub(super) group: Arc<str>,
    pub(super) join: JoinOptions,
    pub(super) protocol: Protocol,
    pub(super) consumer: Arc<BaseConsumer<MemberContext>>,
    pub(super) queue: Arc<DataQueue<MemberContext>>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) bell: Arc<Bell>,
    pub(super) aide: Aide,
    pub(super) kicker: Kicker,
    pub(super) transactions: Arc<TransactionalProducer>,
    pub(super) slots: Slots,
    /// The rebalance event that is not answered yet.
    pub(super) pending: Option<Pending>,
    /// The partitions of a pending assignment that is to be claimed first.
    pub(super) claim: Option<Claim>,
    /// When the progress of a pending assignment is taken to wait for a step that the member before
    /// has left open.
    pub(super) heir_at: Option<Instant>,
    /// Whether the member has a name that stays.
    pub(super) named: bool,
    /// Those that came meanwhile.
    pub(super) next_up: VecDeque<Pending>,
    pub(super) commits: Commits,
    /// Partitions that are to be read from another place when no event waits for its answer.
    pub(super) astray: Vec<Name>,
    /// The generation that the member was last assigned in.
    pub(super) generation: i32,
    /// How often it was assigned partitions.
    pub(super) assignments: u64,
    /// The last generation in which the member was told its part, be it only what to give up.
    pub(super) told: i32,
    /// When the session was last looked after.
    pub(super) watched: Instant,
    pub(super) pulse: Option<Pulse>,
    pub(super) initial_offsets: InitialOffsets,
    /// Steps that are to be vouched for when no other offsets are on their way.
    pub(super) steps: Steps,
    /// When the places in the partitions were last compared with what was handed over.
    pub(super) looked: Instant,
    /// Told when the group has let the member in.
    pub(super) joined: Option<oneshot::Sender<Result<String>>>,
}

impl Poller {
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        let transactions = self.transactions.clone();
        self.subscribe();
        let left = loop {
            self.poll_events();
            if let Some(left) = self.obey(commands) {
                break left;
            }
            let now = Instant::now();
            self.on_time(now);
            self.answer_if_ready();
            self.ask_for_astray();
            self.vouch_for_steps();
            self.commit();
            self.tell_joined();
            self.hand_over(now);
        };
        self.leave();
        if let Some(left) = left {
            // Whoever asked may have gone.
            let _ = left.send(());
        }
        // A step that is under way ends first, and nobody need wait for that.
        transactions.close();
    }

    /// Begins to be a member. From here on somebody must answer rebalances, so nothing comes between this
    /// and the first poll that can fail.
    fn subscribe(&mut self) {
        self.bell.reach(Some(self.queue.clone()));
        let streams: Vec<&str> = self.join.streams.iter().map(|it| &**it).collect();
        if let Err(error) = self.consumer.subscribe(&streams) {
            self.fail(error::from("join", error));
        }
    }

    fn poll_events(&mut self) {
        let consumer = self.consumer.clone();
        // Once at least: each poll tells librdkafka that the member lives.
        let mut is_first = true;
        while std::mem::take(&mut is_first) || self.queue.has_events() {
            // Other errors were told to the context, with their reason.
            if let Some(Err(KafkaError::MessageConsumptionFatal(code))) =
                consumer.poll(Duration::ZERO)
            {
                self.fail(error::from_code("read", code));
            }
        }
        for happening in self.consumer.context().happened() {
            self.on(happening);
        }
        if let Some(trouble) = self.consumer.context().base.trouble.first() {
            self.fail(trouble);
        }
    }

    fn on(&mut self, happening: Happening) {
        match happening {
            Happening::Assign {
                partitions,
                identity,
            } => self.on_assign(partitions, identity),
            Happening::Revoke {
                partitions,
                identity,
                lost,
            } => self.on_revoke(partitions, identity, lost),
            Happening::Committed(each) => self.on_committed(&each),
            Happening::NotCommitted(code) => self.on_not_committed(code),
            Happening::Bounds(bounds) => self.on_statistics(bounds),
            // The reason names the topic in prose only: all are looked at.
            Happening::Missing => {
                for topic in self.join.streams.clone() {
                    self.aide.ask(Question::Topic(topic));
                }
            }
        }
    }

    /// Answers what to tell when the member is to leave.
    fn obey(&mut self, commands: &Receiver<Command>) -> Option<Option<oneshot::Sender<()>>> {
        for command in commands.try_iter() {
            match command {
                Command::Checkpoint { marks, reply } => self.commits.checkpoints.want(marks, reply),
                Command::Release {
                    partition,
                    epoch,
                    reply,
                } => {
                    let released = self.release(&partition, epoch);
                    // A dropped call has released all the same.
                    let _ = reply.send(released);
                }
                Command::Vouch { marks, reply } => self.steps.push_back((marks, reply)),
                Command::Published(marks) => marks.iter().for_each(|mark| self.note_stored(mark)),
                Command::Gone { assignments } => {
                    self.lose(|slot| slot.assignment <= assignments);
                }
                Command::Pause(partition, epoch) => self.pause(&partition, epoch),
                Command::Resume(partition, epoch) => self.resume(&partition, epoch),
                Command::Leave(reply) => return Some(reply),
                Command::Found(finding) => self.on_found(finding),
                #[cfg(test)]
                Command::Panic => panic!("as the test wants it"),
            }
        }
        None
    }

    fn on_found(&mut self, finding: Finding) {
        match finding {
            Finding::Progress {
                progress,
                topic_ids,
            } => self.on_progress(progress, &topic_ids),
            Finding::Unstored(names) => self.initial_offsets.on_unstored(&names),
            Finding::TopicIds(ids) => self.on_topic_ids(&ids),
            Finding::Bounds {
                name,
                low,
                high,
                topic_id,
            } => self.on_bounds(&name, (low, high), topic_id),
            Finding::Ends(ends) => self.on_ends(ends),
            Finding::Resets(resets) => self.on_resets(resets),
            Finding::NoTopic(topic) => {
                let message = "the topic is gone, it was deleted while it was read";
                self.fail(Error::new(ErrorKind::NotFound, "read", message).with_stream(topic));
            }
            Finding::Failed(error) => self.fail(error),
        }
    }

    /// Ends the membership with an error of the group.
    pub(super) fn fail(&mut self, error: Error) {
        let error = error.with_group(self.group.clone());
        if let Some(joined) = self.joined.take() {
            // Who joins may have given up, and then leaves.
            let _ = joined.send(Err(error.clone()));
        }
        self.mailbox.fail(error);
    }

    fn tell_joined(&mut self) {
        if self.joined.is_none() || !self.is_let_in() {
            return;
        }
        match self.initial_offsets.next(Instant::now()) {
            Next::Look(names) => self.aide.ask(Question::Unstored(names)),
            Next::Store => self.commits.store_initial_offsets(),
            Next::Wait => {}
            Next::Done => {
                if let (Some(joined), Some(identity)) =
                    (self.joined.take(), identity(&*self.consumer))
                {
                    // Who joins may have given up, and then leaves.
                    let _ = joined.send(Ok(identity.member));
                }
            }
        }
    }

    /// Whether the group has let the member in.
    fn is_let_in(&self) -> bool {
        match self.protocol {
            // Each rebalance ends with an assignment, if only of nothing.
            Protocol::Cooperative => self.generation > 0,
            // Nothing may be assigned, and no event tells that.
            Protocol::Consumer => {
                identity(&*self.consumer).is_some_and(|identity| identity.is_member())
            }
        }
    }

    /// Waits until the member is between no two steps of a rebalance.
    ///
    /// A client that ends after the group has a new generation, and before it knows its part in it,
    /// does not tell that it leaves (librdkafka 2.12, join state `wait-sync`): the group would wait
    /// for it until its session times out. The generation is then ahead of the last event.
    fn finish_rebalance(&mut self) {
        let until = Instant::now() + LONGEST_TO_FINISH;
        while self.protocol == Protocol::Cooperative && Instant::now() < until {
            self.poll_events();
            let ahead =
                identity(&*self.consumer).is_some_and(|identity| identity.generation > self.told);
            if !ahead {
                return;
            }
            self.bell.wait(WAIT_TO_JOIN);
        }
    }

    /// Does what time alone makes due.
    fn on_time(&mut self, now: Instant) {
        self.give_up_drains(now);
        self.pulse(now);
        self.watch_session(now);
        self.harden_pauses(now);
        self.forward_strayed();
        self.inherit(now);
        let context = &self.consumer.context().base;
        context.look_after(self.consumer.client());
    }

    /// How long nothing is due.
    pub(super) fn may_wait(&self, now: Instant) -> Duration {
        let longest = match self.joined {
            Some(_) => WAIT_TO_JOIN,
            None if self.has_strayed() => WAIT_FOR_STRAYED,
            None if self.drains_for_others() => LOOK_EVERY,
            None => LONGEST_WAIT,
        };
        let claim = self.claim.iter().map(|claim| claim.due);
        let due = self
            .next_drain_end()
            .into_iter()
            .chain(self.next_hardening())
            .chain(claim.filter(|due| *due > now))
            .chain(self.heir_at)
            .chain(self.commits.next_due())
            .chain(self.pulse.as_ref().map(Pulse::next));
        due.map(|due| due.saturating_duration_since(now))
            .fold(longest, Duration::min)
    }

    pub(super) fn put(&self, event: Event) {
        self.mailbox.put(event);
    }

    /// Lets everything go, in the order in which the client can end: its events answered, its
    /// queue destroyed, then the client itself, which leaves the group.
    fn leave(mut self) {
        self.finish_rebalance();
        self.consumer.context().close();
        self.answer_before_leaving();
        self.kicker.close();
        self.aide.close();
        self.bell.reach(None);
        self.commits.give_up();
    }
}
