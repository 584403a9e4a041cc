//! The chain that raises alerts: `processed-events` to `notifications`.

use std::future::pending;
use std::sync::Arc;

use millstream::{ConsumerGroup, Delivery, Record, Result};

use crate::book::WINDOW;
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
    let event = Event::parse(delivery.payload())?;
    let partition = delivery.partition();
    let answers = fleet
        .book
        .lock()
        .observe(partition, tag, event, &fleet.alerts);
    let mut records = Vec::new();
    for answer in answers {
        let payload = serde_json::to_vec(&answer.alert)?;
        let record = Record::new(payload).key(answer.alert.vehicle().to_owned());
        let tag = Tag {
            lane: &answer.lane,
            seq: answer.seq,
        };
        records.push(fleet.run.mark(record, tag));
    }
    fleet.handled(Stage::Notifications, &delivery);
    Ok(records)
}
