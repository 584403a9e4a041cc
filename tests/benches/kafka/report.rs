//! What the jobs measured, round by round, as the figures that are made of it.

use std::collections::BTreeMap;

use crate::figures::{Figure, Of};
use crate::job::{Job, Measured};
use crate::spread;

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
        let values = self.rounds.iter().filter_map(|round| {
            let of = |job: &Job, what| round.get(job)?.get(what).copied();
            match &figure.of {
                Of::Value(job, what) => of(job, *what),
                Of::Ratio(over, under, what) => Some(of(over, *what)? / of(under, *what)?),
            }
        });
        let aim = figure.aim.map(|aim| format!(", aim {aim}"));
        let aim = aim.unwrap_or_default();
        spread::print(figure.name, figure.unit, values.collect(), &aim);
    }
}
