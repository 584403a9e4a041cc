//! An aggregate in flight.

use tokio::time::Instant;

use crate::producer::calls::{Calls, Ticket};
use crate::stream::HashRange;

/// The tickets of the records in an aggregate.
pub(in crate::producer) struct InFlightAggregate {
    pub(super) tickets: Vec<Ticket>,
    /// The size of the aggregate.
    pub(super) bytes: usize,
    pub(super) sent: Instant,
    /// The cover of the buffer that it was filled from.
    pub(super) cover: HashRange,
}

impl InFlightAggregate {
    /// Counts a failure of the records that are still to be sent. Returns the largest number of attempts
    /// of any of them.
    pub(super) fn count_failure(&mut self, calls: &Calls) -> u32 {
        let tickets = self.tickets.iter_mut();
        let open = tickets.filter(|ticket| calls.deadline(ticket).is_some());
        let attempts = open.map(|ticket| {
            ticket.attempts += 1;
            ticket.attempts
        });
        attempts.max().unwrap_or(0)
    }
}
