//! Random fleets with random faults on the memory backend, each from a seed that replays exactly.
//!
//! A run has its own single-threaded runtime with tokio's paused clock, so that hours pass in
//! milliseconds and only the seed decides what happens: no wall clock, no threads, no order
//! of a hash map. A [`Script`] is drawn from the seed and run, and the
//! [`checker`](crate::checker) checks the history. At the end everything must be settled, within a
//! deadline in virtual time.
//!
//! A script contains the load as well as the faults: tombstones and records at the limits, groups that pull or
//! take batches, pipelines that publish results exactly once or at least once, partitions that are split, merged
//! and added, and streams that are deleted and recreated under their groups and producers.

use std::fmt;
use std::io::Write;

use crate::checker::Verdict;
use crate::history::History;

mod behavior;
mod dead_letters;
mod disruption;
mod draw;
mod end;
mod member;
mod memberships;
mod oddity;
mod pipeline;
mod recreation;
mod refusing_backend;
mod restart;
mod retention;
mod run;
mod script;
mod sending;
mod sim_group;
mod stream_contents;
mod watch;
mod world;

pub use script::Script;

/// The result of a seed.
#[derive(Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Its script.
    pub script: Script,
    /// The history of the run.
    pub history: History,
    /// The verdict of the checker.
    pub verdict: Verdict,
    /// Other problems: something never ended, or ended with an error without a cause.
    pub problems: Vec<String>,
}

/// Draws the script of a seed without running it.
pub fn script(seed: u64) -> Script {
    draw::script(seed)
}

/// Runs a seed.
///
/// # Panics
/// If no runtime can be created.
pub fn run(seed: u64) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing from the system");
    let script = draw::script(seed);
    runtime.block_on(run::run(script))
}

impl Report {
    /// Returns whether there are no violations and no problems.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.problems.is_empty()
    }

    /// Writes the last `most` events of the history as JSON lines.
    ///
    /// # Errors
    /// The errors of `to`.
    pub fn write_events(&self, mut to: impl Write, most: usize) -> std::io::Result<()> {
        let entries = self.history.entries();
        for entry in &entries[entries.len().saturating_sub(most)..] {
            serde_json::to_writer(&mut to, entry)?;
            writeln!(to)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.verdict)?;
        for problem in &self.problems {
            writeln!(f, "  {problem}")?;
        }
        Ok(())
    }
}
