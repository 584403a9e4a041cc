//! The group that reads `car-raw-events.dead`: bad lines of the input, and reports that could
//! not be cleaned.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

use millstream::{ConsumerGroup, Delivery, Headers};

use crate::fleet::Fleet;
use crate::members::Member;
use crate::send::LINE;
use crate::stage::Stage;

/// The header with the reason, in every record that the SDK sends to a dead letter stream.
const REASON: &str = "millstream-dead-reason";

pub(crate) fn join(fleet: Arc<Fleet>, group: ConsumerGroup) -> Member {
    let run = group.run(move |delivery| look(fleet.clone(), delivery), pending());
    Member::start(run, None)
}

async fn look(fleet: Arc<Fleet>, delivery: Delivery) -> Result<(), Infallible> {
    match delivery.headers().get(REASON) {
        // A report that a group has dead-lettered: no group downstream gets it.
        Some(reason) => {
            if let Some(tag) = fleet.run.tag(delivery.headers()) {
                let reason = String::from_utf8_lossy(reason);
                fleet.dead_letter(tag, line(delivery.headers()), &reason);
            }
        }
        None => fleet.handled(Stage::DeadLetters, &delivery),
    }
    Ok(())
}

fn line(headers: &Headers) -> u64 {
    let line = headers.get(LINE);
    line.and_then(|line| std::str::from_utf8(line).ok()?.parse().ok())
        .unwrap_or_default()
}
