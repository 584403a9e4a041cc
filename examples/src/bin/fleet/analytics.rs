//! The slow reader: it loads `processed-events` into a warehouse in batches, and waits for it.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use millstream::{BatchFailure, ConsumerGroup, Delivery};

use crate::event::Event;
use crate::fleet::Fleet;
use crate::members::Member;
use crate::stage::Stage;

const BATCH: usize = 1_000;

/// The time that the warehouse takes for a batch.
const LOAD: Duration = Duration::from_millis(50);

/// Aggregates that the warehouse has computed.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) highest_feet: f64,
    pub(crate) fastest_knots: f64,
}

pub(crate) fn join(fleet: Arc<Fleet>, group: ConsumerGroup) -> Member {
    let run = group.run_batches(BATCH, move |batch| load(fleet.clone(), batch), pending());
    Member::start(run, None)
}

async fn load(fleet: Arc<Fleet>, batch: Vec<Delivery>) -> Result<(), BatchFailure> {
    tokio::time::sleep(LOAD).await;
    for (index, delivery) in batch.iter().enumerate() {
        if fleet.run.tag(delivery.headers()).is_some() && !delivery.is_tombstone() {
            let event =
                Event::parse(delivery.payload()).map_err(|error| BatchFailure::at(index, error))?;
            fleet.statistics.lock().add(&event);
        }
        fleet.handled(Stage::Analytics, delivery);
    }
    Ok(())
}

impl Statistics {
    fn add(&mut self, event: &Event) {
        let most = |most: f64, value: Option<f64>| most.max(value.unwrap_or(most));
        self.highest_feet = most(self.highest_feet, event.altitude);
        self.fastest_knots = most(self.fastest_knots, event.speed);
    }
}
