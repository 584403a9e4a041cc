//! The contract of every lease store.

use aws_sdk_dynamodb::types::AttributeValue;

use super::memory::MemoryStore;
use crate::lease::change;
use crate::lease::row::new::{number, string, strings};
use crate::lease::row::{Progress, Row, names};
use crate::lease::store::{Condition, Item, LeaseStore, Outcome, Update};

pub(crate) fn memory() -> MemoryStore {
    MemoryStore::new()
}

fn item(key: &str) -> Item {
    [
        (names::KEY, string(key)),
        (names::COUNTER, number(0)),
        (names::CHECKPOINT, string(names::LATEST)),
        (names::PARENTS, strings(&["b".into(), "a".into()]).unwrap()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

async fn row(store: &dyn LeaseStore, key: &str) -> Row {
    Row::read(&store.get(key).await.unwrap().unwrap()).unwrap()
}

pub(crate) async fn run(store: &dyn LeaseStore) {
    s27_a_second_create_changes_nothing(store).await;
    s28_changes_meet_their_conditions(store).await;
    s29_a_row_that_is_gone_is_not_made_again(store).await;
    s31_rows_are_deleted_under_conditions(store).await;
}

async fn s27_a_second_create_changes_nothing(store: &dyn LeaseStore) {
    assert_eq!(store.get("one").await.unwrap(), None);
    assert!(store.create(item("one")).await.unwrap());
    let mut other = item("one");
    other.insert(names::COUNTER.into(), number(9));
    assert!(!store.create(other).await.unwrap());
    let stored = row(store, "one").await;
    assert_eq!(
        (stored.counter, stored.parents),
        (0, vec!["a".into(), "b".into()])
    );
    assert_eq!(store.scan(true).await.unwrap().len(), 1);
}

async fn s28_changes_meet_their_conditions(store: &dyn LeaseStore) {
    let before = row(store, "one").await;
    let renewed = store.update("one", &change::renew(&before)).await.unwrap();
    let Outcome::Applied(renewed) = renewed else {
        panic!("{renewed:?}");
    };
    assert_eq!(Row::read(&renewed).unwrap().counter, 1);
    // A repetition meets an incremented counter, and returns the row.
    let refused = store.update("one", &change::renew(&before)).await.unwrap();
    assert_eq!(refused, Outcome::Refused(Some(renewed.clone())));

    let now = Row::read(&renewed).unwrap();
    let position = "49680487875297799117750197684405414020555427567586246690.8";
    let progress = Progress::After(position.parse().unwrap());
    let stored = store
        .update("one", &change::store(&now, progress))
        .await
        .unwrap();
    let Outcome::Applied(stored) = stored else {
        panic!("{stored:?}");
    };
    assert_eq!(stored[names::SUB], AttributeValue::N("8".into()));
    assert_eq!(row(store, "one").await.progress, progress);

    let children = change::children(&["c".into(), "d".into()]);
    store.update("one", &children).await.unwrap();
    let now = row(store, "one").await;
    assert_eq!((now.counter, now.children.len()), (2, 2));
    let requested = store
        .update("one", &change::request("nobody", "me"))
        .await
        .unwrap();
    assert!(
        matches!(requested, Outcome::Refused(Some(_))),
        "{requested:?}"
    );
    let notified = change::notify("nobody", 1);
    let notified = store.update("one", &notified).await.unwrap();
    assert!(
        matches!(notified, Outcome::Refused(Some(_))),
        "{notified:?}"
    );
    let evicted = store.update("one", &change::evict(&now)).await.unwrap();
    assert!(matches!(evicted, Outcome::Applied(_)), "{evicted:?}");
}

async fn s29_a_row_that_is_gone_is_not_made_again(store: &dyn LeaseStore) {
    let stored = row(store, "one").await;
    for update in [
        change::renew(&stored),
        change::children(&["c".into()]),
        change::range(0, 1),
        change::withdraw("me"),
        change::notify("me", 1),
        change::evict(&stored),
    ] {
        let outcome = store.update("two", &update).await.unwrap();
        assert_eq!(outcome, Outcome::Refused(None), "{update:?}");
    }
    let absent = Update {
        set: vec![(names::OWNER, string("me"))],
        remove: Vec::new(),
        given: vec![Condition::Absent(names::OWNER), Condition::Exists],
    };
    assert_eq!(
        store.update("two", &absent).await.unwrap(),
        Outcome::Refused(None)
    );
    assert_eq!(store.get("two").await.unwrap(), None);
}

async fn s31_rows_are_deleted_under_conditions(store: &dyn LeaseStore) {
    let given = |counter| vec![Condition::Is(names::COUNTER, number(counter))];
    assert!(!store.delete("two", &given(0)).await.unwrap());
    assert!(!store.delete("one", &given(99)).await.unwrap());
    assert!(store.get("one").await.unwrap().is_some());
    let counter = row(store, "one").await.counter;
    assert!(store.delete("one", &given(counter)).await.unwrap());
    assert_eq!(store.get("one").await.unwrap(), None);
}
