//! The fleet program: streams real telemetry through producers, pipelines and groups, and verifies
//! the result from its own history.
//!
//! Start reading at `stage`, which names the groups, and continue with one of them (`cleaner`,
//! `notifications`, `analytics`), which do not depend on a backend. `run` connects the parts;
//! `sent_log` and `verifier` keep the history.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Parser;
use millstream::Settings;
use tokio::sync::watch;

use crate::args::Args;
use crate::input::Source;
use crate::summary::Verdict;

mod alert_store;
mod alerts;
mod analytics;
mod args;
mod chaos;
mod cleaner;
mod dashboard;
mod dead_letters;
mod entities;
mod event;
mod fleet;
mod inbox;
mod input;
mod line;
mod members;
mod notes;
mod notifications;
mod number;
mod progress;
mod recreate;
mod reshard;
mod run;
mod send;
mod sent_log;
mod stage;
mod status;
mod summary;
mod tag;
mod tombstones;
mod verifier;

/// The exit code of wrong usage, the same as clap's.
const WRONG_USE: u8 = 2;

/// The settings if the command line names none.
const SETTINGS: &str = include_str!("../../../fleet.toml");

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let prepared = async {
        let settings = Settings::builder().env("MILLSTREAM");
        let settings = match &args.config {
            Some(file) => settings.file(file),
            None => settings.defaults(SETTINGS),
        };
        let settings = settings.build()?;
        let input = Source::new(args.input.clone()).open(args.key.clone(), args.repeat)?;
        anyhow::Ok((settings.connect().await?, input))
    };
    let (client, input) = match prepared.await {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::from(WRONG_USE);
        }
    };

    let (mut summary, mut result) = run::run(&args, client, input, watch_signals()).await;
    if summary.sent == 0 && summary.bad_lines > 0 {
        // Nothing was verified in this case, and `--key` may be mistyped.
        result = result.and(Err(anyhow!("no line of the input can be used")));
    }
    if result.is_err() {
        summary.verdict = Verdict::Failed;
    }
    let text = match args.json {
        true => serde_json::to_string(&summary).expect("numbers and names are always JSON"),
        false => summary.to_string(),
    };
    // A closed standard output does not change the verdict.
    let _ = writeln!(io::stdout(), "{text}");
    if let Err(error) = &result {
        eprintln!("error: {error:#}");
    }
    match summary.verdict {
        Verdict::Good => ExitCode::SUCCESS,
        Verdict::NotGood | Verdict::Failed => ExitCode::FAILURE,
    }
}

/// Turns SIGTERM and Ctrl-C into a stop. A second one ends the process at once.
fn watch_signals() -> watch::Receiver<bool> {
    let signal = millstream::shutdown_signal();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        signal.await;
        eprintln!("stopping: what was sent is handled first; a second signal aborts");
        stop.send_replace(true);
    });
    stopped
}
