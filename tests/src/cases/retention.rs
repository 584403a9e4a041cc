//! The reports to a group about records that retention has removed.

use std::sync::Arc;

use millstream_core::{Delivery, OnDataLoss};

use super::cases;
use crate::fleet::{Fleet, TestProducer};
use crate::history::{Event, id_of};
use crate::{Fault, Harness};

cases! {
    c10_earliest_is_resolved_at_group_creation [TRIM],
    operate_data_loss_names_the_last_record_before_it [TRIM],
}

/// The id of the first record that is sent after retention has removed those before.
const LATER: u64 = 5_000;

/// Removes all records of the stream except possibly the newest, and sends 5 more.
async fn trim(fleet: &Fleet) {
    let fault = Fault::Trim {
        group: fleet.group.clone(),
        stream: fleet.stream.clone(),
    };
    fleet.inject(fault).await;
    let producer = TestProducer::open(&fleet.client, &fleet.stream, &fleet.history, LATER);
    let mut producer = producer.await;
    for _ in 0..5 {
        producer.send_one(Some("later")).await;
    }
    producer.close().await;
}

/// The group joins while all records are there, and reads none of them before they are removed.
async fn c10_earliest_is_resolved_at_group_creation(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(1, 10).await;
    let consumer = fleet.handle().await.join().await;
    let consumer = consumer.expect("the first member joins");
    consumer.close().await.expect("the first member leaves");
    trim(&fleet).await;
    let member = fleet.member("b");
    let member = member.with(|group| group.on_data_loss(OnDataLoss::Skip));
    let member = member.start().await;
    let later =
        |event: &Event| matches!(event, Event::Ended { handling, .. } if handling.id >= LATER);
    fleet
        .until("the later records are handled", || {
            fleet.history.count(later) == 5
        })
        .await;
    assert_eq!(
        member.handle().stats().data_losses,
        1,
        "the first records were there when the group started"
    );
    member.close().await;
}

async fn operate_data_loss_names_the_last_record_before_it(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(1, 10).await;
    let member = fleet.member("a").start().await;
    fleet.caught_up().await;
    member.close().await;
    let mut last = super::reader::read(&*fleet.harness, &fleet.stream, 10).await;
    last.sort_by_key(Delivery::position);
    let last = last.pop().expect("there are records");
    assert_eq!(
        id_of(last.payload()),
        Some(10),
        "the last record is the one that was sent last"
    );
    // Retention may keep the newest of these.
    let producer = TestProducer::open(&fleet.client, &fleet.stream, &fleet.history, 1_000);
    let mut producer = producer.await;
    for _ in 0..5 {
        producer.send_one(Some("gone")).await;
    }
    producer.close().await;
    trim(&fleet).await;
    let member = fleet.member("b").start().await;
    let ended = member.ended(timing).await;
    let error = ended.expect_err("records are gone");
    let (message, after) = (error.message(), last.position());
    assert!(
        message.contains(&format!("after {after} ")),
        "{message:?} does not say that the records after {after} are gone"
    );
}
