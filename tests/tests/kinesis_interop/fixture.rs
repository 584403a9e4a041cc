//! The stream and the group of a case, on a testbed that all cases share.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use aws_sdk_kinesis::types::Shard;
use conformance::kinesis::Testbed;
use conformance::kinesis::java::Library;
use millstream_core::StreamSpec;
use millstream_kinesis::{Aggregation, Config, Credentials};

use crate::background_load::BackgroundLoad;
use crate::checks::{Summary, check};
use crate::leases::{self, Lease};
use crate::log::Log;

/// How long a silent member keeps its leases, on both sides.
pub(crate) const SESSION: Duration = Duration::from_secs(3);

/// The timeout of every wait. The library scans the table every 6 s, and audits the leases a minute
/// after its start.
const TIMEOUT: Duration = Duration::from_secs(150);

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Added to the session: the machine is busy, and a member learns of a loss late.
const MARGIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) testbed: Arc<Testbed>,
    pub(crate) library: Library,
    /// The name of the stream and of the group, which is the library's application and its table.
    pub(crate) name: String,
    pub(crate) log: Log,
    begun: Instant,
}

impl Fixture {
    pub(crate) async fn new(testbed: Arc<Testbed>, library: Library, shards: usize) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("interop-{}", COUNT.fetch_add(1, Relaxed));
        let client = config(&testbed)
            .connect()
            .await
            .expect("the emulator responds");
        let spec = StreamSpec::new(name.as_str()).partitions(shards);
        client.streams().create(spec).await.expect("it is created");
        Self {
            testbed,
            library,
            name,
            log: Log::default(),
            begun: Instant::now(),
        }
    }

    pub(crate) fn config(&self) -> Config {
        config(&self.testbed)
    }

    /// Returns all shards, including closed ones.
    pub(crate) async fn shards(&self) -> Vec<Shard> {
        let list = self.testbed.kinesis().list_shards().stream_name(&self.name);
        let listed = list.send().await.expect("the shards are listed");
        listed.shards.unwrap_or_default()
    }

    /// Creates the lease table, so that a Java member that joins first need not.
    pub(crate) async fn create_leases(&self) {
        leases::create(self.testbed.dynamodb(), &self.name, &self.shards().await).await;
    }

    pub(crate) async fn leases(&self) -> BTreeMap<String, Lease> {
        leases::read(self.testbed.dynamodb(), &self.name).await
    }

    /// Returns the shards whose leases a member owns. A millstream member appends to its name.
    pub(crate) async fn held_by(&self, member: &str) -> Vec<String> {
        let leases = self.leases().await.into_iter();
        let held = leases.filter(|(_, lease)| {
            let owner = lease.owner.as_deref();
            owner.is_some_and(|owner| owner.starts_with(member))
        });
        held.map(|(shard, _)| shard).collect()
    }

    /// Starts a steady load.
    pub(crate) async fn send_in_background(&self, aggregation: Aggregation) -> BackgroundLoad {
        let mut config = self.config();
        config.producer.aggregation = aggregation;
        let client = config.connect().await.expect("the emulator responds");
        BackgroundLoad::start(&client, &self.name).await
    }

    /// Waits until `met` returns a value, and returns it.
    #[track_caller]
    pub(crate) fn until<'a, T, F>(
        &'a self,
        what: &'a str,
        mut met: impl FnMut() -> F + 'a,
    ) -> impl Future<Output = T> + 'a
    where
        F: Future<Output = Option<T>> + 'a,
    {
        let at = std::panic::Location::caller();
        async move {
            let begun = Instant::now();
            loop {
                if let Some(met) = met().await {
                    return met;
                }
                if let Some(failed) = self.log.failed() {
                    panic!("{at}: {failed:?} while waiting: {what}");
                }
                if begun.elapsed() > TIMEOUT {
                    let leases = self.leases().await;
                    panic!("{at}: not within {TIMEOUT:?}: {what}; {leases:#?}");
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
    }

    /// Waits until `members` share the leases as evenly as possible, and each has one.
    pub(crate) async fn balanced(&self, members: &[&str]) -> Duration {
        let begun = Instant::now();
        self.until("the leases are shared evenly", || async {
            let all = self.leases().await.len();
            let mut shares = Vec::new();
            for member in members {
                shares.push(self.held_by(member).await.len());
            }
            let (least, most) = (shares.iter().min()?, shares.iter().max()?);
            let even = all > 0 && shares.iter().sum::<usize>() == all && most - least <= 1;
            even.then_some(())
        })
        .await;
        begun.elapsed()
    }

    /// Waits until a member has handled more records.
    pub(crate) async fn at_work(&self, member: &str) {
        const SOME: usize = 20;
        let so_far = self.log.records(member).len();
        let what = format!("{member} is at work");
        self.until(&what, || async {
            (self.log.records(member).len() >= so_far + SOME).then_some(())
        })
        .await;
    }

    /// Waits until all records are handled, and checks them.
    pub(crate) async fn check(&self, sent: &BTreeMap<String, u64>) -> Summary {
        let all: u64 = sent.values().sum();
        self.until("all that was sent is handled", || async {
            (self.log.payloads().len() as u64 >= all).then_some(())
        })
        .await;
        check(&self.log, sent, SESSION + MARGIN)
    }

    /// Prints a message with the time since the case began.
    pub(crate) fn print(&self, what: &str) {
        let (library, since) = (self.library, self.begun.elapsed());
        println!("{library:?}, after {since:.1?}: {what}");
    }
}

fn config(testbed: &Testbed) -> Config {
    let mut config = Config::default();
    config.region = Some(Testbed::REGION.into());
    config.credentials = Some(credentials());
    config.endpoint = Some(testbed.kinesis_endpoint());
    config.dynamodb_endpoint = Some(testbed.dynamodb_endpoint());
    config.consumer.session_timeout = SESSION;
    config.leases.audit_interval = Duration::from_secs(1);
    config
}

pub(crate) fn credentials() -> Credentials {
    let [id, secret] = Testbed::CREDENTIALS;
    Credentials {
        access_key_id: id.into(),
        secret_access_key: secret.to_owned().into(),
        session_token: None,
    }
}
