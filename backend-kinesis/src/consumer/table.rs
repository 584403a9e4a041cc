use std::sync::Arc;

use millstream_core::{Error, ErrorKind, Result};

use crate::connection::Connection;
use crate::lease::DynamoDb;

/// The lengths of names that DynamoDB accepts.
const LENGTHS: std::ops::RangeInclusive<usize> = 3..=255;

/// Returns the lease table of a group.
pub(super) fn of(
    connection: &Connection,
    group: &str,
    operation: &'static str,
) -> Result<Arc<DynamoDb>> {
    let leases = &connection.config.leases;
    let table = leases.table.replace("{group}", group);
    if !LENGTHS.contains(&table.len()) {
        let message = format!(
            "the lease table would be called {table:?}, and a table of DynamoDB has a name of 3 to \
             255 letters: choose another name for the group, or set `leases.table`"
        );
        return Err(Error::new(ErrorKind::Invalid, operation, message).with_group(group));
    }
    let client = connection.dynamodb.clone();
    let credit = connection.lease_credit.clone();
    let patience = connection.config.request_timeout;
    let table = DynamoDb::new(client, credit, table, leases.create, patience);
    Ok(Arc::new(table))
}
