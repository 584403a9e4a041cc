//! The cleaning pipeline: `car-raw-events` to `processed-events`.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use millstream::{ConsumerGroup, DeadLetter, Delivery, Record, Result, Retry};

use crate::alert_store::WINDOW;
use crate::event::Event;
use crate::fleet::{DEAD, Fleet, PROCESSED};
use crate::line::json_error;
use crate::members::Member;
use crate::send::PASS;
use crate::stage::Stage;

const DAY: u64 = 24 * 60 * 60;

pub(crate) async fn join(fleet: Arc<Fleet>, group: ConsumerGroup) -> Result<Member> {
    let producer = fleet.client.producer(PROCESSED).open().await?;
    // Parse errors are permanent, so retry once only.
    let policy = Retry::fixed(Duration::from_millis(10))
        .attempts(2)
        .then(DeadLetter::stream(DEAD));
    let run = group
        .on_failure(policy)
        .max_unsettled_per_partition(WINDOW)
        .max_poll_records(WINDOW)
        .transform_to(
            &producer,
            move |delivery| clean(fleet.clone(), delivery),
            pending(),
        );
    Ok(Member::start(run, Some(producer)))
}

async fn clean(fleet: Arc<Fleet>, delivery: Delivery) -> anyhow::Result<Option<Record>> {
    let Some(tag) = fleet.run.tag(delivery.headers()) else {
        fleet.handled(Stage::Cleaner, &delivery);
        return Ok(None);
    };
    if delivery.is_tombstone() {
        let record = fleet.run.mark(Record::tombstone(tag.lane.to_owned()), tag);
        fleet.handled(Stage::Cleaner, &delivery);
        return Ok(Some(record));
    }
    let mut event = Event::clean(tag.lane, delivery.payload())
        .map_err(|error| anyhow!("cannot be cleaned: {}", json_error(&error)))?;
    if let Some((time, pass)) = event.timestamp.as_mut().zip(delivery.headers().get(PASS)) {
        let pass: u64 = std::str::from_utf8(pass)?.parse()?;
        *time += pass * DAY;
    }
    let record = Record::new(event.to_json()?).key(tag.lane.to_owned());
    let record = fleet.run.mark(record, tag);
    fleet.handled(Stage::Cleaner, &delivery);
    Ok(Some(record))
}
