//! The recipients of alerts: they pull from `notifications`, one at a time.

use std::sync::Arc;

use millstream::{Consumer, ConsumerGroup, Result};

use crate::fleet::Fleet;
use crate::members::Member;
use crate::stage::Stage;

pub(crate) async fn join(fleet: Arc<Fleet>, group: ConsumerGroup) -> Result<Member> {
    let consumer = group.join().await?;
    let handle = consumer.handle();
    Ok(Member::spawn(handle, read(fleet, consumer)))
}

async fn read(fleet: Arc<Fleet>, mut consumer: Consumer) -> Result<()> {
    while let Some(delivery) = consumer.next().await? {
        fleet.handled(Stage::Inbox, &delivery);
        delivery.ack();
    }
    consumer.close().await
}
