//! Messages for the terminal, collected where they occur and shown with the progress.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of bad lines that are shown individually; all are counted and kept in the dead letter stream.
const SHOWN: usize = 20;

/// Collects messages.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Collected>);

#[derive(Debug, Default)]
struct Collected {
    waiting: Vec<String>,
    bad_lines: u64,
    first_bad: Vec<u64>,
}

impl Notes {
    pub(crate) fn say(&self, text: String) {
        self.lock().waiting.push(text);
    }

    /// Counts a bad line, and shows a message for the first ones.
    pub(crate) fn bad_line(&self, number: u64, reason: &str) {
        let mut notes = self.lock();
        notes.bad_lines += 1;
        if notes.first_bad.len() < SHOWN {
            notes.first_bad.push(number);
            notes.waiting.push(format!("bad line {number}: {reason}"));
        } else if notes.bad_lines == SHOWN as u64 + 1 {
            let more = "more bad lines follow; the dead letter stream has them all".into();
            notes.waiting.push(more);
        }
    }

    /// Returns the messages since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().waiting)
    }

    /// Returns the number of bad lines, and the line numbers of the first ones.
    pub(crate) fn bad_lines(&self) -> (u64, Vec<u64>) {
        let notes = self.lock();
        (notes.bad_lines, notes.first_bad.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
