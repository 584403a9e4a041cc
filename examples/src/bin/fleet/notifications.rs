//! The pipeline that raises alerts: `processed-events` to `notifications`.

use std::future::pending;
use std::sync::Arc;

use millstream::{ConsumerGroup, Delivery, Record, Result};

use crate::alert_store::WINDOW;
use crate::event::Event;
use crate::fleet::{Fleet, NOTIFICATIONS};
use crate::members::Member;
use crate::stage::Stage;
use crate::tag::Tag;

pub(crate) async fn join(fleet: Arc<Fleet>, group: ConsumerGroup) -> Result<Member> {
    let producer = fleet.client.producer(NOTIFICATIONS).open().await?;
    let run = group
        .max_unsettled_per_partition(WINDOW)
        .max_poll_records(WINDOW)
        .transform_to(
            &producer,
            move |delivery| alert(fleet.clone(), delivery),
            pending(),
        );
    Ok(Member::start(run, Some(producer)))
}

async fn alert(fleet: Arc<Fleet>, delivery: Delivery) -> anyhow::Result<Vec<Record>> {
    let Some(tag) = fleet.run.tag(delivery.headers()) else {
        fleet.handled(Stage::Notifications, &delivery);
        return Ok(Vec::new());
    };
    let partition = delivery.partition();
    if delivery.is_tombstone() {
        fleet.alert_store.lock().sign_off(partition, tag);
        fleet.handled(Stage::Notifications, &delivery);
        return Ok(Vec::new());
    }
    let event = Event::parse(delivery.payload())?;
    let raised = fleet
        .alert_store
        .lock()
        .observe(partition, tag, event, &fleet.alerts);
    let mut records = Vec::new();
    for raised in raised {
        let payload = serde_json::to_vec(&raised.alert)?;
        let record = Record::new(payload).key(raised.alert.vehicle().to_owned());
        let tag = Tag {
            lane: &raised.lane,
            seq: raised.seq,
        };
        records.push(fleet.run.mark(record, tag));
    }
    fleet.handled(Stage::Notifications, &delivery);
    Ok(records)
}
