use std::thread;

use crate::{Error, ErrorKind, Result};

/// Runs a future on a new thread, with its own runtime.
///
/// It is for work that must continue whatever the application does, above all heartbeats: a handler that blocks
/// all threads of the application's runtime does not delay it. Connections that the future opens
/// are driven by that runtime, and should not be used elsewhere. The thread ends with the future.
///
/// # Errors
/// `Unavailable` if the system starts no thread. The operation is `"join"`.
///
/// # Panics
/// If `name` contains a NUL byte. Linux shows the first 15 bytes of a name.
pub fn spawn_thread(name: &str, future: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let failed = |error: std::io::Error| {
        let message = "no thread can be started for the heartbeats of the member";
        Error::new(ErrorKind::Unavailable, "join", message).with_source(error)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let thread = thread::Builder::new().name(name.into());
    let spawned = thread.spawn(move || runtime.block_on(future));
    spawned.map(drop).map_err(failed)
}
