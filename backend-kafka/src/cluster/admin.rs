//! Requests that change the cluster.
//!
//! Each request uses its own client, created and dropped on a thread that may block: such requests are rare, and
//! rdkafka's admin client holds two threads and blocks when it is dropped.

use std::time::Duration;

use millstream_core::{Error, ErrorKind, Result};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::runtime::Handle;

use crate::connection::Connection;
use crate::connection::context::Context;
use crate::{background, error};

/// The results of a request, one for each requested item.
type Answers = Result<Vec<Result<String, (String, RDKafkaErrorCode)>>, KafkaError>;

/// Requests one change, and returns the controller's result.
///
/// The caller must have made another request to the cluster before: a refused login is not detected here.
///
/// If the call is dropped, the request continues in the background until `timeout`.
pub(crate) async fn change<F>(
    connection: &Connection,
    operation: &'static str,
    timeout: Duration,
    request: F,
) -> Result<()>
where
    F: AsyncFnOnce(&AdminClient<Context>, &AdminOptions) -> Answers + Send + 'static,
{
    let admin = connection.admin(operation);
    let runtime = Handle::current();
    let changed = background::run_and_drop(operation, move || {
        let client = match admin() {
            Ok(client) => client,
            Err(refused) => return (Err(refused), None),
        };
        // The broker responds when the change is done, or reports that it took too long.
        let options = AdminOptions::new()
            .request_timeout(Some(timeout))
            .operation_timeout(Some(timeout));
        let answers = runtime.block_on(request(&client, &options));
        let answers = answers.map_err(|refused| error::from(operation, refused));
        let answer = answers.map(|answers| answers.into_iter().next());
        (answer, Some(client))
    });
    match changed.await?? {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, code))) => Err(error::from_code(operation, code)),
        None => Err(Error::new(
            ErrorKind::Unavailable,
            operation,
            "the broker did not say whether it was done",
        )),
    }
}
