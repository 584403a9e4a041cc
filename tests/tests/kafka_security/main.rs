//! Authentication and authorization against a real broker.
#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

mod logins;
mod opening;
mod permissions;
mod pki;
mod proxied;
mod relogin;
mod secured;
mod slow_tokens;
mod tokens;

use std::time::{Duration, Instant};

use millstream_core::{Error, ErrorKind, Result};

/// Errors that are reported at once are reported well within this time, on a busy machine too; the connection timeout
/// in these tests is a minute.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Checks that a call is refused at once, without revealing a secret.
async fn refused<T>(what: &str, kind: ErrorKind, call: impl Future<Output = Result<T>>) -> Error {
    let begun = Instant::now();
    let Err(error) = call.await else {
        panic!("{what}: it is let through");
    };
    let took = begun.elapsed();
    println!("{what}: after {took:?}: {error}");
    assert_eq!(error.kind(), kind, "{what}: {error:?}");
    assert!(took < AT_ONCE, "{what}: it took {took:?}");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(secured::SECRET), "{what}: {shown}");
    error
}
