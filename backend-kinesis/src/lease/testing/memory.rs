//! A lease table in memory, with a script of faults.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use millstream_core::{Error, ErrorKind, Result};
use tokio::time::sleep;

use crate::lease::row::{Row, names};
use crate::lease::store::{Condition, Item, LeaseStore, Outcome, Update};

/// A request, as input of a script of faults.
#[derive(Debug)]
pub(crate) enum Call<'a> {
    Scan,
    Get(&'a str),
    Create(&'a str),
    Update(&'a str, &'a Update),
    Delete(&'a str),
}

/// The fault of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// It is not applied.
    Fail(ErrorKind),
    /// It is applied, but its response is lost.
    Lose(ErrorKind),
    /// It is delayed before it is applied.
    Slow(Duration),
}

type Script = Box<dyn FnMut(&Call<'_>) -> Option<Fault> + Send>;

/// Cheap to clone: all clones are one table, with one script of faults.
#[derive(Clone)]
pub(crate) struct MemoryStore {
    rows: Arc<Mutex<BTreeMap<String, Item>>>,
    version: Arc<Mutex<Option<String>>>,
    script: Arc<Mutex<Option<Script>>>,
    calls: Arc<Mutex<Vec<String>>>,
    refused: Arc<AtomicUsize>,
    deaf: Arc<AtomicBool>,
}

impl MemoryStore {
    pub(crate) fn new() -> Self {
        Self {
            rows: Arc::default(),
            version: Arc::default(),
            script: Arc::default(),
            calls: Arc::default(),
            refused: Arc::default(),
            deaf: Arc::default(),
        }
    }

    /// Returns the same table over another connection, with its own faults and calls.
    pub(crate) fn beside(&self) -> Self {
        Self {
            rows: self.rows.clone(),
            version: self.version.clone(),
            script: Arc::default(),
            calls: Arc::default(),
            refused: self.refused.clone(),
            deaf: Arc::default(),
        }
    }

    pub(crate) fn script(&self, script: impl FnMut(&Call<'_>) -> Option<Fault> + Send + 'static) {
        *self.script.lock().unwrap() = Some(Box::new(script));
    }

    /// Responds from now on as if nobody ever requested a lease.
    pub(crate) fn deaf(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    fn heard(&self, mut item: Item) -> Item {
        if self.deaf.load(Ordering::Relaxed) {
            item.remove(names::REQUESTER);
        }
        item
    }

    pub(crate) fn heal(&self) {
        *self.script.lock().unwrap() = None;
    }

    /// Returns the requests since the last call, each with its key.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Returns the number of changes whose condition did not hold.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn set_version(&self, version: &str) {
        *self.version.lock().unwrap() = Some(version.to_owned());
    }

    pub(crate) fn put(&self, item: Item) {
        let key = item[names::KEY].as_s().unwrap().clone();
        self.rows.lock().unwrap().insert(key, item);
    }

    pub(crate) fn remove(&self, key: &str) {
        self.rows.lock().unwrap().remove(key);
    }

    pub(crate) fn item(&self, key: &str) -> Option<Item> {
        self.rows.lock().unwrap().get(key).cloned()
    }

    pub(crate) fn row(&self, key: &str) -> Option<Row> {
        Some(Row::read(&self.item(key)?).unwrap())
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let rows = self.rows.lock().unwrap();
        rows.values().flat_map(Row::read).collect()
    }

    /// Changes a row like another worker.
    pub(crate) fn change(&self, key: &str, change: impl FnOnce(&Row) -> Update) {
        let row = self.row(key).unwrap();
        let outcome = self.apply(key, &change(&row));
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    }

    pub(crate) fn apply(&self, key: &str, update: &Update) -> Outcome {
        let mut rows = self.rows.lock().unwrap();
        if !holds(rows.get(key), &update.given) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Outcome::Refused(rows.get(key).cloned());
        }
        assert!(!update.given.is_empty(), "an update without a condition");
        let row = rows.entry(key.to_owned()).or_default();
        for (name, value) in &update.set {
            assert!(!update.remove.contains(name), "{name} is set and removed");
            row.insert((*name).to_owned(), value.clone());
        }
        for name in &update.remove {
            row.remove(*name);
        }
        Outcome::Applied(row.clone())
    }

    fn fault(&self, call: &Call<'_>) -> Option<Fault> {
        let mut script = self.script.lock().unwrap();
        script.as_mut().and_then(|script| script(call))
    }

    async fn made<T>(&self, call: Call<'_>, make: impl FnOnce() -> T) -> Result<T> {
        self.calls.lock().unwrap().push(match &call {
            Call::Scan => "scan".to_owned(),
            Call::Get(key) => format!("get {key}"),
            Call::Create(key) => format!("create {key}"),
            Call::Update(key, _) => format!("update {key}"),
            Call::Delete(key) => format!("delete {key}"),
        });
        match self.fault(&call) {
            None => Ok(make()),
            Some(Fault::Fail(kind)) => Err(Error::new(kind, "test", "scripted")),
            Some(Fault::Lose(kind)) => {
                make();
                Err(Error::new(kind, "test", "scripted"))
            }
            Some(Fault::Slow(delay)) => {
                sleep(delay).await;
                Ok(make())
            }
        }
    }
}

fn holds(row: Option<&Item>, given: &[Condition]) -> bool {
    given.iter().all(|condition| match condition {
        Condition::Exists => row.is_some(),
        Condition::Is(name, value) => row.and_then(|row| row.get(*name)) == Some(value),
        Condition::Absent(name) => row.is_none_or(|row| !row.contains_key(*name)),
    })
}

#[async_trait]
impl LeaseStore for MemoryStore {
    fn table(&self) -> &str {
        "table"
    }

    async fn open(&self) -> Result<()> {
        Ok(())
    }

    async fn scan(&self, _consistent: bool) -> Result<Vec<Item>> {
        let rows = || {
            let rows = self.rows.lock().unwrap();
            rows.values()
                .cloned()
                .map(|item| self.heard(item))
                .collect()
        };
        self.made(Call::Scan, rows).await
    }

    async fn get(&self, key: &str) -> Result<Option<Item>> {
        let get = || self.item(key).map(|item| self.heard(item));
        self.made(Call::Get(key), get).await
    }

    async fn create(&self, item: Item) -> Result<bool> {
        for value in item.values() {
            assert_ne!(*value, AttributeValue::S(String::new()));
            assert_ne!(*value, AttributeValue::Ss(Vec::new()));
        }
        let key = item[names::KEY].as_s().unwrap().clone();
        let make = || {
            let mut rows = self.rows.lock().unwrap();
            let missing = !rows.contains_key(&key);
            if missing {
                rows.insert(key.clone(), item);
            }
            missing
        };
        self.made(Call::Create(&key), make).await
    }

    async fn update(&self, key: &str, update: &Update) -> Result<Outcome> {
        let make = || match self.apply(key, update) {
            Outcome::Applied(item) => Outcome::Applied(self.heard(item)),
            Outcome::Refused(item) => Outcome::Refused(item.map(|item| self.heard(item))),
        };
        self.made(Call::Update(key, update), make).await
    }

    async fn delete(&self, key: &str, given: &[Condition]) -> Result<bool> {
        let make = || {
            let mut rows = self.rows.lock().unwrap();
            holds(rows.get(key), given) && rows.remove(key).is_some()
        };
        self.made(Call::Delete(key), make).await
    }

    async fn client_version(&self) -> Result<Option<String>> {
        // DynamoDB is queried for it in two tables.
        for table in ["this", "the old"] {
            self.calls
                .lock()
                .unwrap()
                .push(format!("version in {table}"));
        }
        Ok(self.version.lock().unwrap().clone())
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}
