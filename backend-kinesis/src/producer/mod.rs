//! Sending.

use std::sync::Arc;

use millstream::{Result, driver};

use crate::connection::Connection;

pub(crate) async fn open(
    connection: &Arc<Connection>,
    stream: &str,
) -> Result<Arc<dyn driver::Producer>> {
    let _ = (connection, stream);
    todo!()
}
