//! Metrics: their computation from jobs, and their values over all rounds.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::job::{Job, Measured};
use crate::quartiles;

pub(crate) struct Metric {
    pub(crate) name: Cow<'static, str>,
    unit: &'static str,
    of: Of,
    /// The project's goal.
    aim: Option<&'static str>,
}

enum Of {
    /// A measured value of a job, by its name there.
    Value(Job, Cow<'static, str>),
    /// The ratio of the same value of two jobs in one round, the first over the second.
    Ratio(Job, Job, Cow<'static, str>),
}

pub(crate) const fn value(
    name: Cow<'static, str>,
    unit: &'static str,
    job: Job,
    what: Cow<'static, str>,
) -> Metric {
    Metric {
        name,
        unit,
        of: Of::Value(job, what),
        aim: None,
    }
}

pub(crate) const fn ratio(
    name: Cow<'static, str>,
    over: Job,
    under: Job,
    what: Cow<'static, str>,
) -> Metric {
    Metric {
        name,
        unit: "ratio",
        of: Of::Ratio(over, under, what),
        aim: None,
    }
}

impl Metric {
    pub(crate) const fn aim(mut self, aim: &'static str) -> Self {
        self.aim = Some(aim);
        self
    }

    pub(crate) fn jobs(&self) -> impl Iterator<Item = Job> {
        let (one, other) = match &self.of {
            Of::Value(job, _) => (*job, None),
            Of::Ratio(over, under, _) => (*over, Some(*under)),
        };
        [Some(one), other].into_iter().flatten()
    }
}

/// The measured values of each job, round by round.
#[derive(Default)]
pub(crate) struct Report {
    rounds: Vec<BTreeMap<Job, Measured>>,
}

impl Report {
    pub(crate) fn add(&mut self, round: BTreeMap<Job, Measured>) {
        self.rounds.push(round);
    }

    pub(crate) fn print(&self, metric: &Metric) {
        let values = self.rounds.iter().filter_map(|round| {
            let of = |job: &Job, what: &str| round.get(job)?.get(what).copied();
            match &metric.of {
                Of::Value(job, what) => of(job, what),
                Of::Ratio(over, under, what) => Some(of(over, what)? / of(under, what)?),
            }
        });
        let aim = metric.aim.map(|aim| format!(", aim {aim}"));
        let aim = aim.unwrap_or_default();
        quartiles::print(&metric.name, metric.unit, values.collect(), &aim);
    }
}
