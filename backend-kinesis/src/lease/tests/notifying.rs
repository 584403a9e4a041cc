//! Notifications in a large group.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::lease::row::names;
use crate::lease::testing::memory::{Call, Fault};
use crate::lease::testing::rig::{App, F, Rig, until};

const SECOND: Duration = Duration::from_secs(1);

const MEMBERS: usize = 50;

/// Members with two leases each.
async fn members(rig: &Rig) -> Vec<App> {
    let apps = (0..MEMBERS).map(async |number| rig.app(&format!("m{number}")).await);
    let apps = join_all(apps).await;
    until(5 * F, || apps.iter().all(|app| app.count() == 2)).await;
    sleep(3 * F).await;
    apps
}

/// Delays each request from now on, and counts the notifications and scans.
fn counted(rig: &Rig) -> [Arc<AtomicUsize>; 2] {
    let [notifications, scans] = [0, 1].map(|_| Arc::new(AtomicUsize::new(0)));
    let counts = [notifications.clone(), scans.clone()];
    rig.store.script(move |call| {
        match call {
            Call::Update(_, update) => {
                let is_notification = update.set.iter().any(|(name, _)| *name == names::RESCAN);
                notifications.fetch_add(usize::from(is_notification), Ordering::Relaxed);
            }
            Call::Scan => _ = scans.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
        Some(Fault::Slow(SECOND / 50))
    });
    counts
}

#[tokio::test(start_paused = true)]
async fn a_reshard_of_a_large_group_notifies_only_those_whom_it_concerns() {
    let rig = Rig::new(2 * MEMBERS);
    let apps = members(&rig).await;
    let [notifications, scans] = counted(&rig);
    let ended = apps.iter().map(async |app| {
        for shard in app.shards() {
            rig.source.split("s", shard);
            app.complete(shard).await.unwrap();
        }
    });
    join_all(ended).await;
    let begun = || apps.iter().map(App::count).sum::<usize>() == 4 * MEMBERS;
    let took = until(2 * F, begun).await;
    assert!(took <= F / 2, "children waited for {took:?}");
    sleep(F).await;
    let [notifications, scans] = [notifications, scans].map(|count| count.load(Ordering::Relaxed));
    assert!(
        notifications <= 40 * MEMBERS,
        "{notifications} notifications, {scans} scans, {took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_member_that_leaves_a_large_group_notifies_those_that_take_its_leases() {
    let rig = Rig::new(2 * MEMBERS);
    let mut apps = members(&rig).await;
    let [notifications, _] = counted(&rig);
    apps.swap_remove(7).leave().await;
    let taken = || apps.iter().map(App::count).sum::<usize>() == 2 * MEMBERS;
    let took = until(2 * F, taken).await;
    assert!(took <= F / 3, "leases were free for {took:?}");
    let notifications = notifications.load(Ordering::Relaxed);
    assert!(
        notifications <= 16,
        "{notifications} notifications, {took:?}"
    );
}
