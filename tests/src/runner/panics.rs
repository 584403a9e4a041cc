//! The panics of a case, from all threads of its runtime.
//!
//! The suite makes handlers panic on purpose, so panics are kept and printed only if the case fails. The
//! reason of a failure is printed first: otherwise the panic of a background task that is cut off
//! when the case ends would be printed beside the reason, and look like it.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::fmt::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

/// The maximum number of other panics that a failure shows. A handler may panic on each delivery.
const SHOWN: usize = 10;

thread_local! {
    static OF_THIS_THREAD: RefCell<Option<Panics>> = const { RefCell::new(None) };
}

/// The panics of one case, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Panics(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    panics: Vec<Panic>,
    /// Whether the case has failed: later panics are effects of its teardown.
    ended: bool,
}

#[derive(Debug)]
struct Panic {
    message: String,
    location: String,
    /// Captured if the environment requests it, and resolved only if it is printed.
    backtrace: Backtrace,
}

impl Panics {
    /// Keeps the panics of the current thread from now on, instead of printing them.
    pub(super) fn capture_this_thread(&self) {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let print = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                let captured = OF_THIS_THREAD.try_with(|panics| panics.borrow().clone());
                match captured {
                    Ok(Some(panics)) => panics.push(info),
                    _ => print(info),
                }
            }));
        });
        OF_THIS_THREAD.set(Some(self.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, info: &PanicHookInfo<'_>) {
        let location = info.location();
        let panic = Panic {
            message: message(info.payload()),
            location: location.map_or("unknown".to_owned(), ToString::to_string),
            backtrace: Backtrace::capture(),
        };
        let mut log = self.lock();
        if !log.ended {
            log.panics.push(panic);
        }
    }

    /// Describes a case that ended with a panic. Later panics are dropped.
    pub(super) fn failure_by_panic(&self, payload: &(dyn Any + Send)) -> String {
        let reason = message(payload);
        let mut log = self.lock();
        // The last one: the hook is not called again for a task's panic that the case resumes.
        let mut panics = log.panics.iter();
        let own = panics.rposition(|panic| panic.message == reason);
        let Some(own) = own.map(|own| log.panics.remove(own)) else {
            return log.describe(reason);
        };
        let mut text = log.describe(format!("{reason}\n  at {}", own.location));
        if own.backtrace.status() == BacktraceStatus::Captured {
            append(&mut text, format_args!("\n\n{}", own.backtrace));
        }
        text
    }

    /// Describes a case that did not end. Later panics are dropped.
    pub(super) fn failure(&self, reason: String) -> String {
        self.lock().describe(reason)
    }
}

impl Log {
    fn describe(&mut self, mut text: String) -> String {
        self.ended = true;
        if self.panics.is_empty() {
            return text;
        }
        text.push_str("\n\nother panics of the case, first to last:");
        for Panic {
            message, location, ..
        } in self.panics.iter().take(SHOWN)
        {
            append(&mut text, format_args!("\n  at {location}: {message}"));
        }
        if self.panics.len() > SHOWN {
            let more = self.panics.len() - SHOWN;
            append(&mut text, format_args!("\n  and {more} more"));
        }
        text
    }
}

fn append(text: &mut String, more: fmt::Arguments<'_>) {
    text.write_fmt(more)
        .expect("writing to a string does not fail");
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a text").to_owned()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn panic_of(text: &'static str) -> Box<dyn Any + Send> {
        panic::catch_unwind(|| panic!("{text}")).expect_err("it panics")
    }

    #[test]
    fn the_reason_of_the_failure_comes_first_and_later_panics_do_not_hide_it() {
        let panics = Panics::default();
        let case = panics.clone();
        let failing = move || {
            case.capture_this_thread();
            panic_of("a background task");
            let reason = panic_of("the reason");
            let failure = case.failure_by_panic(&*reason);
            panic_of("cut off with the runtime");
            (failure, case.failure("again".to_owned()))
        };
        let (failure, later) = thread::spawn(failing).join().expect("it is caught");
        let lines: Vec<&str> = failure.lines().collect();
        assert_eq!(lines[0], "the reason");
        assert!(
            lines[1].starts_with("  at tests/src/runner/panics.rs:"),
            "{failure}"
        );
        assert_eq!(lines[3], "other panics of the case, first to last:");
        assert!(lines[4].ends_with(": a background task"), "{failure}");
        assert!(!later.contains("cut off"), "{later}");
    }
}
