//! The fast reader: it shows where each vehicle is, from `entity-updates`.

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
        let event = Event::parse(delivery.payload())?;
        let mut positions = fleet.positions.lock();
        match positions.get_mut(tag.lane) {
            Some(position) => *position = event,
            None => {
                positions.insert(tag.lane.to_owned(), event);
            }
        }
    }
    fleet.handled(Stage::Dashboard, &delivery);
    Ok(())
}
