//! A clock that can be set: the wall clock of this process only.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime};

/// The variable with the path of the file that has this process's offset in seconds.
const FILE: &str = "MILLSTREAM_CLOCK";

/// The tolerance with which a jump is measured.
const EXACT: Duration = Duration::from_secs(1);

/// The clock of this process.
#[derive(Debug)]
pub(crate) struct Clock {
    file: PathBuf,
}

impl Clock {
    /// Returns the clock of this process, if it was started by [`start`].
    pub(crate) fn of_this_process() -> Option<Self> {
        let file = env::var_os(FILE)?.into();
        Some(Self { file })
    }

    /// Sets the clock ahead of the true time, or behind it.
    ///
    /// # Panics
    /// If the clock does not show the new time.
    pub(crate) fn set(&self, ahead: i64) {
        let before = (Instant::now(), SystemTime::now(), self.ahead());
        // Written in place: the file is part of this process's memory.
        let file = File::options().write(true).open(&self.file);
        let file = file.expect("the clock is there");
        file.write_all_at(&ahead.to_ne_bytes(), 0)
            .expect("the clock is set");
        let expected = match u64::try_from(ahead - before.2) {
            Ok(secs) => before.1 + Duration::from_secs(secs),
            Err(_) => before.1 - Duration::from_secs((before.2 - ahead).unsigned_abs()),
        };
        let expected = expected + before.0.elapsed();
        let now = SystemTime::now();
        let apart = now
            .duration_since(expected)
            .unwrap_or_else(|error| error.duration());
        assert!(
            apart < EXACT,
            "the clock shows {now:?}, and not {expected:?}"
        );
    }

    fn ahead(&self) -> i64 {
        let bytes = fs::read(&self.file).expect("the clock is there");
        i64::from_ne_bytes(bytes.try_into().expect("a number of eight bytes"))
    }
}

/// Runs this program again, with a clock that can be set.
///
/// # Panics
/// If the clock cannot be set up.
pub(crate) fn start() -> ExitCode {
    let place = tempfile::tempdir().expect("a folder");
    let (library, file) = (place.path().join("clock.so"), place.path().join("ahead"));
    build(&library);
    fs::write(&file, 0_i64.to_ne_bytes()).expect("the clock is made");
    let program = env::current_exe().expect("it runs");
    let status = Command::new(program)
        .args(env::args_os().skip(1))
        .env("LD_PRELOAD", &library)
        .env(FILE, &file)
        .status()
        .expect("it runs again");
    match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn build(library: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kinesis_clock/clock.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([library, &source])
        .arg("-ldl")
        .status();
    assert!(
        built.expect("there is a C compiler").success(),
        "{source:?} is not compiled"
    );
}
