//! Shows the progress on standard error: live in a terminal, as plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::number::grouped;
use crate::stage::Stage;
use crate::status::{Group, Status};

/// The interval between two plain lines.
const PLAIN: Duration = Duration::from_secs(1);

/// The lines above those of the groups.
const HEAD: usize = 2;

/// The output of the progress.
pub(crate) enum Progress {
    Terminal {
        all: MultiProgress,
        /// As many as the lines of [`table`].
        lines: Vec<ProgressBar>,
        last: Status,
    },
    Plain {
        last: Status,
    },
}

impl Progress {
    pub(crate) fn new() -> Self {
        let last = Status::default();
        if !std::io::stderr().is_terminal() {
            return Self::Plain { last };
        }
        let all = MultiProgress::new();
        // The template has no placeholders in doubt; `with_template` fails only for invalid ones.
        let style = ProgressStyle::with_template("{wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let lines = (0..HEAD + Stage::ALL.len())
            .map(|_| all.add(ProgressBar::new_spinner().with_style(style.clone())))
            .collect();
        Self::Terminal { all, lines, last }
    }

    /// Shows a message above the rest.
    pub(crate) fn say(&self, remark: &str) {
        match self {
            Self::Terminal { all, .. } => {
                // The terminal may be gone.
                let _ = all.println(remark);
            }
            Self::Plain { .. } => eprintln!("{remark}"),
        }
    }

    /// Shows the status; in plain lines, once a second.
    pub(crate) fn show(&mut self, now: &Status) {
        match self {
            Self::Terminal { lines, last, .. } => {
                for (line, text) in lines.iter().zip(table(last, now)) {
                    line.set_message(text);
                }
                // Speeds are measured over at least half a second, so that they are readable.
                if now.elapsed >= last.elapsed + PLAIN / 2 {
                    *last = now.clone();
                }
            }
            Self::Plain { last } if now.elapsed < last.elapsed + PLAIN => {}
            Self::Plain { last } => {
                for line in table(last, now) {
                    eprintln!("{line}");
                }
                *last = now.clone();
            }
        }
    }

    /// Keeps the last status on the terminal, and stops.
    pub(crate) fn finish(&self) {
        if let Self::Terminal { lines, .. } = self {
            for line in lines {
                line.abandon();
            }
        }
    }
}

/// Formats the status in lines of 80 columns.
fn table(last: &Status, now: &Status) -> Vec<String> {
    let mut lines = vec![
        format!(
            "{:5.1} s  sent {}, {}/s  members {}  rebalances {}",
            now.elapsed.as_secs_f64(),
            grouped(now.sent),
            grouped(speed(last, now, last.sent, now.sent)),
            now.live(),
            now.rebalances(),
        ),
        "group        members   handled      /s    lag  by partition".into(),
    ];
    lines.extend(now.groups.iter().map(|group| {
        let before = last.groups.iter().find(|old| old.stage == group.stage);
        let handled = before.map_or(0, |old| old.handled);
        format!(
            "{:<13} {:>6} {:>9} {:>7} {:>6}  {}",
            group.stage.name(),
            group.members.live,
            grouped(group.handled),
            grouped(speed(last, now, handled, group.handled)),
            grouped(group.lag()),
            by_partition(group),
        )
    }));
    lines
}

fn by_partition(group: &Group) -> String {
    let lags = group.lags.iter().map(|lag| match lag {
        Some(records) => records.to_string(),
        None => "?".into(),
    });
    lags.collect::<Vec<_>>().join(" ")
}

/// Returns the records per second between two moments.
fn speed(last: &Status, now: &Status, before: u64, after: u64) -> u64 {
    let seconds = (now.elapsed - last.elapsed).as_secs_f64();
    if seconds > 0.0 {
        (after.saturating_sub(before) as f64 / seconds).round() as u64
    } else {
        0
    }
}
