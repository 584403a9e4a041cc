//! The sink: results and progress in one database, changed in one transaction.
//!
//! A crash leaves both or none. A record that is delivered again is found in the progress and skipped.
//!
//! Progress is kept for each partition of each **stream id**, not of each name: positions restart
//! in a recreated stream, and its records are not those that were applied.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use millstream::{Delivery, Epoch, Position};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS cars (
        car TEXT PRIMARY KEY,
        reports INTEGER NOT NULL,
        last_report BLOB NOT NULL
    );
    CREATE TABLE IF NOT EXISTS progress (
        stream_id TEXT NOT NULL,
        partition TEXT NOT NULL,
        key BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        position TEXT NOT NULL,
        PRIMARY KEY (stream_id, partition, key)
    ) WITHOUT ROWID;
";

/// Counts the reports of each car.
pub(crate) struct Sink(Mutex<Connection>);

impl Sink {
    pub(crate) fn open(path: &str) -> anyhow::Result<Self> {
        let database = Connection::open(path)?;
        database.execute_batch(TABLES)?;
        Ok(Self(Mutex::new(database)))
    }

    /// Applies a batch of `run_batches`. Its records are in stored order, and no other batch of the
    /// partition is handled meanwhile, so one position shows what was applied.
    pub(crate) fn apply(&self, batch: &[Delivery]) -> anyhow::Result<()> {
        self.apply_beyond(&[], batch)
    }

    /// Applies one record of `run`. Keys of a partition are handled concurrently, so each
    /// has its own progress: with one position for all, a record would be skipped because a later
    /// one of another key was applied first.
    ///
    /// A sink uses this or [`apply`](Self::apply), not both.
    #[allow(dead_code, reason = "the program uses batches")]
    pub(crate) fn apply_one(&self, delivery: &Delivery) -> anyhow::Result<()> {
        let key = delivery.key();
        let key = key.context("records without a key have no order: use batches")?;
        self.apply_beyond(key, std::slice::from_ref(delivery))
    }

    /// Applies those of `deliveries` that are after the progress of `key` in their partition.
    fn apply_beyond(&self, key: &[u8], deliveries: &[Delivery]) -> anyhow::Result<()> {
        let Some(last) = deliveries.last() else {
            return Ok(());
        };
        let mut database = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Immediate: no other process changes the progress between the read and the write.
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut position = None;
        if let Some((epoch, applied)) = progress(&transaction, key, last)? {
            // The member has lost the partition and does not know it yet. Nobody sees this error.
            if last.epoch() < epoch {
                bail!("epoch {} is older than {epoch}", last.epoch());
            }
            position = Some(applied);
        }
        for delivery in deliveries {
            if Some(delivery.position()) > position {
                count(&transaction, delivery)?;
                position = Some(delivery.position());
            }
        }
        let position = position.expect("there is a delivery");
        transaction.execute(
            "INSERT OR REPLACE INTO progress VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                stream_id(last),
                last.partition().to_string(),
                key,
                i64::try_from(last.epoch().0)?,
                position.to_string(),
            ],
        )?;
        transaction.commit()?;
        Ok(())
    }

    /// Returns each car with the number of its reports.
    pub(crate) fn reports(&self) -> anyhow::Result<Vec<(String, i64)>> {
        let database = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cars = database.prepare("SELECT car, reports FROM cars ORDER BY car")?;
        let cars = cars.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(cars.collect::<Result<_, _>>()?)
    }
}

/// Returns the id of the stream. Without one, a new stream cannot be distinguished from the old one.
fn stream_id(delivery: &Delivery) -> &str {
    delivery.stream_id().unwrap_or_default()
}

/// Returns the largest epoch and position that were applied.
fn progress(
    transaction: &Transaction<'_>,
    key: &[u8],
    delivery: &Delivery,
) -> anyhow::Result<Option<(Epoch, Position)>> {
    let stored: Option<(i64, String)> = transaction
        .query_row(
            "SELECT epoch, position FROM progress WHERE stream_id = ?1 AND partition = ?2 AND key = ?3",
            params![stream_id(delivery), delivery.partition().to_string(), key],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((epoch, position)) = stored else {
        return Ok(None);
    };
    Ok(Some((Epoch(u64::try_from(epoch)?), position.parse()?)))
}

/// Counts a report. A report that is counted twice makes the result wrong.
fn count(transaction: &Transaction<'_>, delivery: &Delivery) -> anyhow::Result<()> {
    let car = String::from_utf8_lossy(delivery.key().map_or(&[][..], |key| key));
    transaction.execute(
        "INSERT INTO cars VALUES (?1, 1, ?2)
         ON CONFLICT (car) DO UPDATE SET reports = reports + 1, last_report = ?2",
        params![car, &delivery.payload()[..]],
    )?;
    Ok(())
}
