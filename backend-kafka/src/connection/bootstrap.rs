//! Restores the connection to a cluster that was reported to have no brokers.
//!
//! A broker that is out of its cluster for a moment, for example because it was frozen for longer than its
//! session, reports that there are no brokers at all. librdkafka (2.12) then forgets the brokers that it knew, and
//! should start again with the bootstrap servers. But while one thread starts the timer for that, another
//! may stop it because of the same response, and the client then has no broker to ask, permanently
//! ([librdkafka#5301](https://github.com/confluentinc/librdkafka/issues/5301)). The only visible sign
//! is the error that all brokers are down. So whenever that error arrives, the bootstrap servers are added to the
//! client again, which does no harm if it knows them.

use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::Client;

use crate::native;

/// The maximum interval between two additions of the servers. librdkafka keeps each list of servers that it is given,
/// so a client that is cut off for a long time gets the list less and less often: when the outage has doubled, and in
/// the end at this interval.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The bootstrap servers of one client, and whether they must be added to it again. Clones share the state.
#[derive(Debug, Clone)]
pub(super) struct Bootstrap {
    servers: CString,
    outage: Arc<Mutex<Outage>>,
}

#[derive(Debug, Default)]
struct Outage {
    /// When the client first reported in this outage that all brokers are down, and when it did so last.
    heard: Option<(Instant, Instant)>,
    due: Option<Instant>,
}

impl Bootstrap {
    pub(super) fn new(servers: &[String]) -> Self {
        // No client was created with servers that contain a NUL byte.
        let servers = CString::new(servers.join(",")).unwrap_or_default();
        Self {
            servers,
            outage: Arc::default(),
        }
    }

    /// Returns the same servers for another client.
    pub(super) fn afresh(&self) -> Self {
        Self {
            servers: self.servers.clone(),
            outage: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the client reports all brokers as down. It repeats the report every 10 s or more often.
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

    /// Adds the bootstrap servers to the client, if it is time.
    pub(super) fn tell<C: ClientContext>(&self, client: &Client<C>) {
        if self.is_due(Instant::now()) {
            tracing::debug!(target: "librdkafka", "the bootstrap servers are asked again");
            native::bootstrap::add_servers(client, &self.servers);
        }
    }

    /// Returns true once when the servers are due.
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
        // The last report still has its effect.
        bootstrap.all_are_down(begun + Duration::from_secs(600));
        assert!(bootstrap.is_due(begun + Duration::from_secs(600) + LONGEST_PAUSE));
    }
}
