//! Requests to brokers that nobody wants the answer of, for what librdkafka (2.12) does with them.
//!
//! **To fetch at once.** While a rebalance event is unanswered librdkafka fetches nothing for the whole
//! member, and neither the answer nor a resume wakes the thread of a broker that had nothing to fetch
//! meanwhile: it sleeps for up to a second (`rd_kafka_max_block_ms`). Any request to the broker wakes
//! it. No event tells when the partitions can be fetched, some milliseconds later; so there are several
//! requests, ever further apart.
//!
//! **To join again at once.** A cooperative rebalance that moves partitions is followed by another one,
//! which a member joins that has given none up: a second after it joined the first, as librdkafka keeps
//! that distance (`rkcg_join_intvl`), and the moved partitions stand still until it has. Metadata that
//! come between the two lift that.
//!
//! It has a thread of its own, for a request that was not needed waits behind a fetch, which lasts
//! until records come. And that must be waited for: a request that times out ends the connection
//! (`socket.max.fails`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use millstream_core::Result;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::aide::no_thread;
use super::context::{MemberContext, Name, list};

/// The times between the requests.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(130),
    Duration::from_millis(300),
];

/// How long a request waits for its answer; more than a fetch waits for records.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be asked for.
#[derive(Debug)]
struct Wish {
    /// Whose leaders are to wake.
    names: Vec<Name>,
    /// Of which metadata are to come.
    topic: Option<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct Kicker {
    wanted: Option<Sender<Wish>>,
    thread: Option<JoinHandle<()>>,
}

impl Kicker {
    pub(super) fn start(consumer: Arc<BaseConsumer<MemberContext>>) -> Result<Self> {
        let (wanted, wants) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("kafka-kicker".into())
            .spawn(move || run(&consumer, &wants))
            .map_err(no_thread)?;
        Ok(Self {
            wanted: Some(wanted),
            thread: Some(thread),
        })
    }

    /// Wakes the leaders of these partitions, now and in a moment.
    pub(super) fn wake(&self, names: Vec<Name>) {
        self.want(Wish { names, topic: None });
    }

    /// As [`wake`](Self::wake), after a rebalance that may be followed by another one at once.
    pub(super) fn ready(&self, names: Vec<Name>, topic: Arc<str>) {
        let topic = Some(topic);
        self.want(Wish { names, topic });
    }

    fn want(&self, wish: Wish) {
        if let Some(wanted) = &self.wanted {
            // It ends only with this.
            let _ = wanted.send(wish);
        }
    }

    /// Ends it; waits for the request that is under way.
    pub(super) fn close(&mut self) {
        self.wanted = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

fn run(consumer: &BaseConsumer<MemberContext>, wants: &Receiver<Wish>) {
    let mut names = BTreeSet::new();
    // None at first: what is over begins anew with the first wish.
    let mut pauses = [].iter();
    loop {
        let wanted = match pauses.next() {
            Some(pause) => wants.recv_timeout(*pause),
            None => {
                names.clear();
                wants.recv().map_err(RecvTimeoutError::from)
            }
        };
        let mut topic = None;
        match wanted {
            Ok(wish) => {
                for wish in [wish].into_iter().chain(wants.try_iter()) {
                    names.extend(wish.names);
                    topic = wish.topic.or(topic);
                }
                pauses = PAUSES.iter();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // First, for what wakes a broker has it fetch, and the next request waits behind that.
        if let Some(topic) = topic {
            // What comes is librdkafka's to heed.
            let _ = consumer.fetch_metadata(Some(&topic), PATIENCE);
        }
        wake(consumer, &names);
    }
}

/// One request to each broker that leads one of them.
fn wake(consumer: &BaseConsumer<MemberContext>, names: &BTreeSet<Name>) {
    let mut times = list(names);
    if !names.is_empty() && times.set_all_offsets(Offset::End).is_ok() {
        // Nobody wants the answer.
        let _ = consumer.offsets_for_times(times, PATIENCE);
    }
}
