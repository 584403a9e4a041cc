use std::time::Duration;
use std::{process, thread};

/// Ends this process if it has not ended after `timeout`. Otherwise a benchmark that hangs would keep
/// its broker forever.
pub(crate) fn watch(timeout: Duration, what: String) {
    thread::spawn(move || {
        thread::sleep(timeout);
        eprintln!("{what} has not ended after {timeout:?}");
        process::exit(3);
    });
}
