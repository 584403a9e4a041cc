//! What the command line asks for.

use crate::Result;

pub(crate) struct Wanted {
    /// In the name of every figure that is measured.
    pub(crate) filter: String,
    pub(crate) rounds: Option<usize>,
}

impl Wanted {
    /// `[FILTER] [--rounds N]`.
    pub(crate) fn from_args(args: Vec<String>) -> Result<Self> {
        let mut wanted = Self {
            filter: String::new(),
            rounds: None,
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match &*arg {
                "--rounds" => wanted.rounds = Some(args.next().ok_or("--rounds N")?.parse()?),
                // Given by cargo.
                "--bench" => {}
                _ => wanted.filter = arg,
            }
        }
        Ok(wanted)
    }
}
