//! Members together with workers that behave like the KCL 2.x.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::lease::change;
use crate::lease::row::Row;
use crate::lease::row::names;
use crate::lease::row::new::{number, string};
use crate::lease::store::{Condition, Outcome, Update};
use crate::lease::taker::{Candidate, Claim, Situation, decide};
use crate::lease::testing::memory::MemoryStore;
use crate::lease::testing::rig::{F, Rig, until};

const SECOND: Duration = Duration::from_secs(1);

/// A worker of the KCL 2.x: it renews its leases, and takes or steals at its slow pace.
struct Java {
    id: &'static str,
    store: MemoryStore,
    held: BTreeMap<Arc<str>, Row>,
    seen: BTreeMap<Arc<str>, (u64, Instant)>,
    random: fastrand::Rng,
}

impl Java {
    fn start(id: &'static str, store: &MemoryStore) -> JoinHandle<()> {
        let mut worker = Self {
            id,
            store: store.clone(),
            held: BTreeMap::new(),
            seen: BTreeMap::new(),
            random: fastrand::Rng::with_seed(5),
        };
        tokio::spawn(async move {
            let round = (F + Duration::from_millis(25)) * 2;
            let mut take_at = Instant::now();
            loop {
                worker.renew();
                if take_at <= Instant::now() {
                    worker.take();
                    take_at = Instant::now() + round;
                }
                sleep(F / 3 - Duration::from_millis(25)).await;
            }
        })
    }

    fn renew(&mut self) {
        let store = &self.store;
        self.held
            .retain(|key, row| match store.apply(key, &change::renew(row)) {
                Outcome::Applied(_) => {
                    row.counter += 1;
                    true
                }
                Outcome::Refused(_) => false,
            });
    }

    fn take(&mut self) {
        let now = Instant::now();
        let rows = self.store.rows();
        let mut candidates = Vec::new();
        for row in &rows {
            let seen = self
                .seen
                .entry(row.key.clone())
                .or_insert((row.counter, now));
            if seen.0 != row.counter {
                *seen = (row.counter, now);
            }
            let age = now - seen.1;
            let mine = self.held.contains_key(&row.key);
            candidates.push(Candidate {
                key: row.key.clone(),
                owner: row.owner.clone(),
                requester: None,
                expired: !mine && age >= F,
                very_old: !mine && age >= 3 * F,
                can_be_requested: false,
            });
        }
        let situation = Situation {
            me: self.id,
            most: usize::MAX,
            may_steal: true,
            claim: Claim::Share,
        };
        let decision = decide(&situation, &candidates, &mut self.random);
        for key in decision.take.into_iter().chain(decision.steal) {
            let row = rows.iter().find(|row| row.key == key).unwrap();
            let update = Update {
                set: vec![
                    (names::OWNER, string(self.id)),
                    (names::COUNTER, number(row.counter + 1)),
                ],
                remove: Vec::new(),
                given: vec![Condition::Is(names::COUNTER, number(row.counter))],
            };
            if let Outcome::Applied(item) = self.store.apply(&key, &update) {
                self.held.insert(key, Row::read(&item).unwrap());
            }
        }
    }
}

fn count(rig: &Rig, worker: &str) -> usize {
    rig.owners().iter().filter(|id| *id == worker).count()
}

#[tokio::test(start_paused = true)]
async fn java_workers_and_members_share_evenly_and_then_rest() {
    let rig = Rig::new(6);
    let a = rig.app("a").await;
    until(SECOND, || a.count() == 6).await;
    let java = Java::start("java", &rig.store);
    until(8 * F, || count(&rig, "java") == 3).await;
    let b = rig.app("b").await;
    let shares = || (count(&rig, "java"), a.count(), b.count());
    until(8 * F, || shares() == (2, 2, 2)).await;
    let told = a.log().len() + b.log().len();
    sleep(20 * F).await;
    assert_eq!((shares(), a.log().len() + b.log().len()), ((2, 2, 2), told));
    // After `kill -9`.
    java.abort();
    until(2 * F, || a.count() + b.count() == 6).await;
    b.leave().await;
    until(2 * SECOND, || a.count() == 6).await;
}

#[tokio::test(start_paused = true)]
async fn a_java_worker_takes_what_a_member_gives_back() {
    let rig = Rig::new(4);
    let a = rig.app("a").await;
    until(SECOND, || a.count() == 4).await;
    let _java = Java::start("java", &rig.store);
    until(5 * F, || count(&rig, "java") == 2).await;
    a.leave().await;
    assert_eq!((count(&rig, "java"), count(&rig, "")), (2, 2));
    until(3 * F, || count(&rig, "java") == 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_takes_over_from_java_workers_and_they_from_it() {
    let rig = Rig::new(3);
    crate::lease::testing::rig::join(rig.options("first"))
        .await
        .unwrap()
        .leave()
        .await
        .unwrap();
    let java = Java::start("java", &rig.store);
    until(SECOND, || count(&rig, "java") == 3).await;
    sleep(F).await;
    java.abort();
    let a = rig.app("a").await;
    until(F + SECOND, || a.count() == 3).await;
    a.checkpoint(0, 7).await.unwrap();
    a.crash().await;
    let _java = Java::start("java2", &rig.store);
    // It needs two of its rounds: one to see the row, one to detect that it has not changed.
    until(5 * F, || count(&rig, "java2") == 3).await;
}
