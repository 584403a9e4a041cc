//! The pipeline that publishes each vehicle's latest position: `processed-events` to
//! `entity-updates`. A tombstone means that the vehicle no longer has one.

use std::future::pending;
use std::sync::Arc;

use millstream::{ConsumerGroup, Delivery, Record, Result};

use crate::event::Event;
use crate::fleet::{ENTITIES, Fleet};
use crate::members::Member;
use crate::stage::Stage;

pub(crate) async fn join(fleet: Arc<Fleet>, group: ConsumerGroup) -> Result<Member> {
    let producer = fleet.client.producer(ENTITIES).open().await?;
    let run = group.transform_to(
        &producer,
        move |delivery| update(fleet.clone(), delivery),
        pending(),
    );
    Ok(Member::start(run, Some(producer)))
}

async fn update(fleet: Arc<Fleet>, delivery: Delivery) -> anyhow::Result<Option<Record>> {
    let Some(tag) = fleet.run.tag(delivery.headers()) else {
        fleet.handled(Stage::Entities, &delivery);
        return Ok(None);
    };
    if delivery.is_tombstone() {
        let record = fleet.run.mark(Record::tombstone(tag.lane.to_owned()), tag);
        fleet.handled(Stage::Entities, &delivery);
        return Ok(Some(record));
    }
    let event = Event::parse(delivery.payload())?;
    let update = Event {
        event_type: Some("entityUpdated".into()),
        speed: None,
        ..event
    };
    let record = Record::new(update.to_json()?).key(tag.lane.to_owned());
    let record = fleet.run.mark(record, tag);
    fleet.handled(Stage::Entities, &delivery);
    Ok(Some(record))
}
