//! The way back into a cluster that was told to have no brokers.
//!
//! A broker that is out of its cluster for a moment, say because it was frozen for longer than its
//! session, tells that there are no brokers at all. librdkafka (2.12) then forgets those it knew, and is
//! to begin again with the bootstrap servers. But while one thread starts the timer for that, another
//! may stop it, on account of the same answer, and the client has nobody to ask ever after
//! ([librdkafka#5301](https://github.com/confluentinc/librdkafka/issues/5301)). All that is seen of it
//! is the error that all brokers are down. So whenever that comes, the client is given the bootstrap
//! servers once more, which does no harm where it knows them.

use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::Client;

use crate::native;

/// librdkafka keeps each list of servers that it is given, so a client that is cut off for long gets it
/// ever less often: when it has been cut off for twice as long, and at last so often.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The bootstrap servers of one client, and whether it is to be told of them. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Bootstrap {
    servers: CString,
    outage: Arc<Mutex<Outage>>,
}

#[derive(Debug, Default)]
struct Outage {
    /// When the client began to say that all brokers are down, and when it said so last.
    heard: Option<(Instant, Instant)>,
    due: Option<Instant>,
}

impl Bootstrap {
    pub(super) fn new(servers: &[String]) -> Self {
        // One with a NUL byte is none that a client is made for.
        let servers = CString::new(servers.join(",")).unwrap_or_default();
        Self {
            servers,
            outage: Arc::default(),
        }
    }

    /// The same for another client.
    pub(super) fn afresh(&self) -> Self {
        Self {
            servers: self.servers.clone(),
            outage: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client says that all brokers are down. It says so again every 10 s or more often.
    pub(super) fn all_are_down(&self, now: Instant) {
        let mut outage = self.lock();
        let begun = match outage.heard {
            Some((begun, last)) if now < last + LONGEST_PAUSE => begun,
            _ => now,
        };
        outage.heard = Some((begun, now));
        let pause = (now - begun).min(LONGEST_PAUSE);
        outage.due.get_or_insert(now + pause);
    }

    /// Tells the client of its bootstrap servers, if it is time.
    pub(super) fn tell<C: ClientContext>(&self, client: &Client<C>) {
        if self.is_due(Instant::now()) {
            tracing::debug!(target: "librdkafka", "the bootstrap servers are asked again");
            native::bootstrap::add_servers(client, &self.servers);
        }
    }

    /// Answers yes once.
    fn is_due(&self, now: Instant) -> bool {
        let due = &mut self.lock().due;
        due.take_if(|due| *due <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_once_each_time() {
        let bootstrap = Bootstrap::new(&["a:1".into(), "b:2".into()]);
        assert_eq!(bootstrap.servers.as_bytes(), b"a:1,b:2");
        let mut now = Instant::now();
        assert!(!bootstrap.is_due(now));
        for _ in 0..3 {
            bootstrap.all_are_down(now);
            assert!(!bootstrap.afresh().is_due(now));
            assert!(bootstrap.is_due(now));
            assert!(!bootstrap.is_due(now));
            now += LONGEST_PAUSE;
        }
    }

    #[test]
    fn a_long_outage_is_met_ever_less_often_and_its_end_is_not_missed() {
        let bootstrap = Bootstrap::new(&["a:1".into()]);
        let begun = Instant::now();
        let mut told = Vec::new();
        for second in 0..600 {
            let now = begun + Duration::from_secs(second);
            if second % 10 == 0 {
                bootstrap.all_are_down(now);
            }
            if bootstrap.is_due(now) {
                told.push(second);
            }
        }
        assert_eq!(told[..5], [0, 20, 60, 130, 200]);
        // What was heard last is still heeded.
        bootstrap.all_are_down(begun + Duration::from_secs(600));
        assert!(bootstrap.is_due(begun + Duration::from_secs(600) + LONGEST_PAUSE));
    }
}
