//! Runs many seeds of the simulation, or one.
//!
//! `simulate --seeds 10000` runs 10,000 seeds on all cores and prints those that fail, each with the
//! command that replays it.
//! `simulate --seed 7` replays one and prints its script, its problems, and the end of its history.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{env, io, thread};

use conformance::simulation;

const USAGE: &str =
    "usage: simulate [--seeds COUNT [--first SEED]] | --seed SEED [--events COUNT] [--history FILE]
  --seeds COUNT    play so many seeds (default 1000)
  --first SEED     begin with this one (default 0)
  --seed SEED      replay one: print its script, its last events and what is wrong
  --events COUNT   print so many events of it (default 60)
  --history FILE   write all its events as JSON lines";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = Order::read(&arguments).and_then(|order| match order {
        Order::Many { first, count } => Ok(many(first, count)),
        Order::One {
            seed,
            events,
            history,
        } => {
            one(seed, events, history.as_deref()).map_err(|error| format!("cannot write: {error}"))
        }
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

enum Order {
    Many {
        first: u64,
        count: u64,
    },
    One {
        seed: u64,
        events: usize,
        history: Option<String>,
    },
}

impl Order {
    fn read(arguments: &[String]) -> Result<Self, String> {
        let (mut first, mut count, mut seed) = (0, 1_000, None);
        let (mut events, mut history) = (60, None);
        for pair in arguments.chunks(2) {
            let [name, value] = pair else {
                return Err(format!("{} needs a value", pair[0]));
            };
            let number = || {
                value
                    .parse::<u64>()
                    .map_err(|_| format!("{name} {value} is no number"))
            };
            match name.as_str() {
                "--seeds" => count = number()?,
                "--first" => first = number()?,
                "--seed" => seed = Some(number()?),
                "--events" => events = usize::try_from(number()?).unwrap_or(usize::MAX),
                "--history" => history = Some(value.clone()),
                _ => return Err(format!("{name} is unknown")),
            }
        }
        Ok(match seed {
            None => Self::Many { first, count },
            Some(seed) => Self::One {
                seed,
                events,
                history,
            },
        })
    }
}

fn many(first: u64, count: u64) -> bool {
    let (played, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        loop {
            let number = played.fetch_add(1, Relaxed);
            if number >= count {
                return;
            }
            let report = simulation::run(first.wrapping_add(number));
            if !report.is_clean() {
                failed.fetch_add(1, Relaxed);
                print!(
                    "{report}  replay: cargo run --release -p conformance --bin simulate -- --seed {}\n\n",
                    report.seed
                );
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner();
    println!("seeds {count} failed {failed}");
    failed == 0
}

fn one(seed: u64, events: usize, history: Option<&str>) -> io::Result<bool> {
    println!("{:#?}", simulation::script(seed));
    let report = simulation::run(seed);
    if let Some(file) = history {
        report
            .history
            .write_to(io::BufWriter::new(std::fs::File::create(file)?))?;
    }
    let mut out = io::stdout().lock();
    if !report.is_clean() {
        report.write_events(&mut out, events)?;
    }
    write!(out, "{report}")?;
    let failed = u8::from(!report.is_clean());
    writeln!(out, "seeds 1 failed {failed}")?;
    Ok(report.is_clean())
}
