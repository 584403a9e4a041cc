//! Requests that change the cluster.
//!
//! Each uses a client of its own, made and dropped on a thread that may block: they are rare, and
//! rdkafka's client for them holds two threads and blocks when it is dropped.

use std::time::Duration;

use millstream_core::{Error, ErrorKind, Result};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::connection::Connection;
use crate::connection::context::Context;
use crate::error;

/// One answer for each thing that was asked for.
type Answers = Result<Vec<Result<String, (String, RDKafkaErrorCode)>>, KafkaError>;

/// Asks for one change and answers what the controller says to it.
///
/// Whoever calls has asked the cluster something before: a refused login is not heard of here.
///
/// A dropped call goes on in the background until `timeout`.
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
    let (answer, changed) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let client = match admin() {
            Ok(client) => client,
            Err(refused) => return answer.send(Err(refused)),
        };
        // The broker answers when the change is done, or says that it took too long.
        let options = AdminOptions::new()
            .request_timeout(Some(timeout))
            .operation_timeout(Some(timeout));
        let answers = Handle::current().block_on(request(&client, &options));
        // Before the client is dropped, for which nobody need wait.
        let answers = answers.map_err(|refused| error::from(operation, refused));
        answer.send(answers.map(|answers| answers.into_iter().next()))
    });
    match changed.await {
        Ok(Ok(Some(Ok(_)))) => Ok(()),
        Ok(Ok(Some(Err((_, code))))) => Err(error::from_code(operation, code)),
        Ok(Ok(None)) => Err(Error::new(
            ErrorKind::Unavailable,
            operation,
            "the broker did not say whether it was done",
        )),
        Ok(Err(refused)) => Err(refused),
        Err(_) => Err(Error::new(
            ErrorKind::Closed,
            operation,
            "the tokio runtime shuts down",
        )),
    }
}
