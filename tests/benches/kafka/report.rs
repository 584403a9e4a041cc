//! Values of rounds, to medians.

use std::collections::BTreeMap;

use crate::figures::{Figure, Of};
use crate::job::{Job, Measured};

/// What each job measured, round by round.
#[derive(Default)]
pub(crate) struct Report {
    rounds: Vec<BTreeMap<Job, Measured>>,
}

impl Report {
    pub(crate) fn add(&mut self, round: BTreeMap<Job, Measured>) {
        self.rounds.push(round);
    }

    pub(crate) fn print(&self, figure: &Figure) {
        let mut values = self
            .rounds
            .iter()
            .filter_map(|round| {
                let of = |job: &Job, what| round.get(job)?.get(what).copied();
                match &figure.of {
                    Of::Value(job, what) => of(job, *what),
                    Of::Ratio(over, under, what) => Some(of(over, *what)? / of(under, *what)?),
                }
            })
            .collect::<Vec<_>>();
        if values.is_empty() {
            return;
        }
        values.sort_by(f64::total_cmp);
        let at = |part: f64| digits(values[((values.len() - 1) as f64 * part).round() as usize]);
        println!("{} {} {}", figure.name, at(0.5), figure.unit);
        let aim = figure
            .aim
            .map_or(String::new(), |aim| format!(", aim {aim}"));
        println!(
            "# quartiles {} to {}, {} rounds{aim}",
            at(0.25),
            at(0.75),
            values.len()
        );
    }
}

fn digits(value: f64) -> String {
    let decimals = if value < 10.0 {
        3
    } else if value < 1_000.0 {
        1
    } else {
        0
    };
    format!("{value:.decimals$}")
}
