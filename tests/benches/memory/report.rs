//! The measured values, round by round.

use crate::quartiles;

#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    unit: &'static str,
    values: Vec<f64>,
}

impl Report {
    pub(crate) fn add(&mut self, name: &'static str, unit: &'static str, value: f64) {
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row {
                name,
                unit,
                values: vec![value],
            }),
        }
    }

    /// Adds the ratio of two measurements, for each round that has both.
    pub(crate) fn ratio(&mut self, name: &'static str, over: &str, under: &str) {
        let values = |name: &str| {
            self.rows
                .iter()
                .find(|row| row.name == name)
                .map(|row| row.values.clone())
        };
        if let (Some(over), Some(under)) = (values(over), values(under)) {
            let values = over
                .iter()
                .zip(under)
                .map(|(over, under)| over / under)
                .collect();
            self.rows.push(Row {
                name,
                unit: "ratio",
                values,
            });
        }
    }

    pub(crate) fn print(self) {
        for Row { name, unit, values } in self.rows {
            quartiles::print(name, unit, values, "");
        }
    }
}
