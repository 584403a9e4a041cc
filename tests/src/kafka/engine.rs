//! The engine that runs the containers: what a process needs of it once, and what the library for
//! containers does not offer.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};

use tokio::process::Command as Async;
use tokio::sync::OnceCell;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/containers");

/// Has the engine running, and the broker's image in it. The first container of a process may so
/// wait for minutes; every later one does not.
pub(super) async fn ready() {
    static READY: OnceCell<()> = OnceCell::const_new();
    READY
        .get_or_init(|| async {
            let up = Async::new(format!("{SCRIPTS}/up")).arg("kafka").output();
            let up = up.await.expect("tests/containers/up can be run");
            let said = String::from_utf8_lossy(&up.stderr);
            assert!(up.status.success(), "tests/containers/up kafka: {said}");
            sweep_up_after_this_process();
        })
        .await;
}

/// Leaves a process behind that removes what this one does not: a killed test runs no destructor,
/// and a static has none. It waits for the other end of its standard input to close, which no way
/// to die can prevent.
fn sweep_up_after_this_process() {
    static SWEEPER: OnceLock<Child> = OnceLock::new();
    // The library's own switch, for a look at the containers of a failed test.
    if std::env::var("TESTCONTAINERS_COMMAND").is_ok_and(|command| command == "keep") {
        return;
    }
    SWEEPER.get_or_init(|| {
        let mut down = Command::new(format!("{SCRIPTS}/down"));
        down.args(["--when-closed", &owner()]);
        down.stdin(Stdio::piped());
        // Who reads this process's output waits for all that hold it.
        down.stdout(Stdio::null()).stderr(Stdio::null());
        // An interrupt from the terminal goes to a whole group, and would end both.
        std::os::unix::process::CommandExt::process_group(&mut down, 0);
        down.spawn().expect("tests/containers/down can be run")
    });
}

/// The label that says which process a container is of.
pub(super) const OWNER: &str = "millstream.owner";

/// The value of [`OWNER`].
pub(super) fn owner() -> String {
    std::process::id().to_string()
}

/// A name for a container or a network that none has. `tests/containers/down` finds the owner in it.
pub(super) fn unique(kind: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Relaxed);
    format!("millstream-{}-{kind}-{count}", owner())
}

/// A port of 127.0.0.1 that nobody listens on.
///
/// Below those that the system hands to outgoing connections: a client's own connection could else
/// sit on the port of a broker that is down, and keep it from coming back.
pub(super) fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run at once begin at different places.
    let begin = std::process::id().wrapping_mul(977) % u32::from(COUNT);
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Relaxed));
        let offset = (begin + step) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).expect("it is below COUNT");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {FIRST}..{} is free", FIRST + COUNT);
}

/// Asks the engine by its own command for what the library does not offer.
pub(super) async fn docker(args: &[&str]) {
    let output = Async::new("docker").args(args).output().await;
    let output = output.expect("the docker command can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {args:?}: {said}");
}

/// The last lines that a container logged. It blocks: a destructor has no other way to ask.
pub(super) fn last_words(container: &str) -> String {
    let logs = Command::new("docker")
        .args(["logs", "--tail", "100", container])
        .output();
    match logs {
        Ok(logs) => [logs.stderr, logs.stdout]
            .map(|said| String::from_utf8_lossy(&said).into_owned())
            .concat(),
        Err(error) => error.to_string(),
    }
}
