//! Notes that nothing was left to be read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_core::{Epoch, Position, Start};
use tokio::time::sleep;

use super::resetting;
use crate::lease::row::new::string;
use crate::lease::row::{Row, Tip, names};
use crate::lease::store::{Condition, Update};
use crate::lease::testing::memory::Call;
use crate::lease::testing::rig::{App, F, Rig, join, until};
use crate::lease::testing::source::id;
use crate::lease::{LeaseEvent, Pin};

const SECOND: Duration = Duration::from_secs(1);

/// Returns a time as it is stored: in milliseconds.
fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn tip(after: Option<u64>) -> Tip {
    Tip {
        after: after.map(Position::from),
        at: noon(),
    }
}

async fn owner(rig: &Rig) -> App {
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 1).await;
    app
}

fn note(app: &App, tip: Tip) {
    let (lease, epoch) = app.lease(0).unwrap();
    app.worker.note_tip(&lease, epoch, tip);
}

fn row(rig: &Rig) -> Row {
    rig.store.row(&id(0)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn it_is_noted_once_and_not_before_progress_has_come_so_far() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    note(&app, tip(Some(7)));
    sleep(F).await;
    assert_eq!(row(&rig).own.tip, None);
    app.checkpoint(0, 6).await.unwrap();
    sleep(F).await;
    assert_eq!(row(&rig).own.tip, None);
    app.checkpoint(0, 9).await.unwrap();
    sleep(F).await;
    assert_eq!(row(&rig).own.tip, Some(tip(Some(7))));
    assert_eq!(row(&rig).tip(), Some(noon()));

    rig.store.script(|call| {
        let notes = |update: &Update| update.set.iter().any(|(name, _)| *name == names::TIP);
        assert!(!matches!(call, Call::Update(_, update) if notes(update)));
        None
    });
    sleep(3 * F).await;
    // The report of a reader that reads no more.
    let (lease, epoch) = app.lease(0).unwrap();
    app.worker.note_tip(&lease, Epoch(epoch.0 - 1), tip(None));
    sleep(F).await;
    assert_eq!(app.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_next_owner_is_told() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    note(&app, tip(None));
    until(F, || row(&rig).own.tip.is_some()).await;
    app.leave().await;
    let next = join(rig.options("b")).await.unwrap();
    match next.next().await {
        LeaseEvent::Taken { tip, .. } => assert_eq!(tip, Some(noon())),
        event => panic!("{event:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_not_that_of_a_place_before() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    app.checkpoint(0, 9).await.unwrap();
    note(&app, tip(Some(9)));
    until(F, || row(&rig).tip().is_some()).await;
    // Like a change by hand.
    rig.store.change(&id(0), |_| Update {
        set: vec![(names::CHECKPOINT, string("3"))],
        remove: Vec::new(),
        given: vec![Condition::Exists],
    });
    assert_eq!(row(&rig).tip(), None);

    resetting::to(&rig, Start::Latest).await.unwrap();
    assert_eq!(row(&rig).own.tip, None);
    assert!(matches!(row(&rig).pin(), Some(Pin { .. })));
}
