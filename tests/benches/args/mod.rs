//! The command line.

use crate::Result;

pub(crate) struct Args {
    /// Selects the metrics whose names contain it.
    pub(crate) filter: String,
    pub(crate) rounds: Option<usize>,
}

impl Args {
    /// Parses `[FILTER] [--rounds N]`.
    pub(crate) fn from_args(args: Vec<String>) -> Result<Self> {
        let mut args_parsed = Self {
            filter: String::new(),
            rounds: None,
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match &*arg {
                "--rounds" => args_parsed.rounds = Some(args.next().ok_or("--rounds N")?.parse()?),
                // Passed by cargo.
                "--bench" => {}
                _ => args_parsed.filter = arg,
            }
        }
        Ok(args_parsed)
    }
}
