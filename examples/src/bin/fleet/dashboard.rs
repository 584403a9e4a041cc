//! The fast reader: it shows the position of each vehicle, from `entity-updates`, until a tombstone removes it.

use std::future::pending;
use std::sync::Arc;

use millstream::{ConsumerGroup, Delivery};

use crate::event::Event;
use crate::fleet::Fleet;
use crate::members::Member;
use crate::stage::Stage;

pub(crate) fn join(fleet: Arc<Fleet>, group: ConsumerGroup) -> Member {
    let run = group.run(move |delivery| show(fleet.clone(), delivery), pending());
    Member::start(run, None)
}

async fn show(fleet: Arc<Fleet>, delivery: Delivery) -> serde_json::Result<()> {
    if let Some(tag) = fleet.run.tag(delivery.headers()) {
        match delivery.is_tombstone() {
            true => remove(&fleet, tag.lane),
            false => update(&fleet, tag.lane, Event::parse(delivery.payload())?),
        }
    }
    fleet.handled(Stage::Dashboard, &delivery);
    Ok(())
}

fn update(fleet: &Fleet, vehicle: &str, event: Event) {
    let mut positions = fleet.positions.lock();
    match positions.get_mut(vehicle) {
        Some(position) => *position = event,
        None => {
            positions.insert(vehicle.to_owned(), event);
        }
    }
}

fn remove(fleet: &Fleet, vehicle: &str) {
    fleet.positions.lock().remove(vehicle);
}
