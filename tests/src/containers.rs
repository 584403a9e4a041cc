//! The container engine: its setup once per process, the start of containers, and functions that the container library
//! does not offer.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use testcontainers::runners::AsyncRunner;
use testcontainers::{
    ContainerAsync, ContainerRequest, GenericImage, ImageExt, TestcontainersError,
};
use tokio::process::Command as Async;
use tokio::sync::Mutex;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/containers");

/// Makes sure that the engine runs and has an image of `tests/containers`. The first container of a process may
/// wait for minutes; later ones do not.
pub(crate) async fn ready(image: &'static str) {
    static READY: Mutex<BTreeSet<&str>> = Mutex::const_new(BTreeSet::new());
    let mut ready = READY.lock().await;
    if ready.contains(image) {
        return;
    }
    let up = Async::new(format!("{SCRIPTS}/up")).arg(image).output();
    let up = up.await.expect("tests/containers/up can be run");
    let said = String::from_utf8_lossy(&up.stderr);
    assert!(up.status.success(), "tests/containers/up {image}: {said}");
    remove_containers_on_exit();
    ready.insert(image);
}

/// Starts a container on ports of 127.0.0.1 only. It retries with other ports when a free port was taken before
/// the engine could bind it.
pub(crate) async fn start<T>(
    name: &str,
    request: impl Fn() -> (ContainerRequest<GenericImage>, T),
) -> (ContainerAsync<GenericImage>, T) {
    const ATTEMPTS: usize = 5;
    for attempt in 1.. {
        let (request, ports) = request();
        let request = request
            .with_label(OWNER, owner())
            // The library publishes on all addresses of the machine.
            .with_host_config_modifier(|config| {
                let bindings = config
                    .port_bindings
                    .iter_mut()
                    .flat_map(|all| all.values_mut());
                for binding in bindings.flatten().flatten() {
                    binding.host_ip = Some("127.0.0.1".to_owned());
                }
            });
        match request.start().await {
            Ok(container) => return (container, ports),
            Err(error) if attempt < ATTEMPTS && port_is_taken(&error) => {}
            Err(error) => panic!("{name} does not start: {error}"),
        }
    }
    unreachable!("the loop has no end")
}

fn port_is_taken(error: &TestcontainersError) -> bool {
    let said = format!("{error:?}");
    said.contains("port is already allocated") || said.contains("address already in use")
}

/// Starts a process that removes the containers that this one does not: a killed test runs no destructor,
/// and neither does a static. The process waits until the other end of its standard input closes, which happens
/// however this process ends.
fn remove_containers_on_exit() {
    static CLEANUP: OnceLock<Child> = OnceLock::new();
    // The library's own variable for inspecting the containers of a failed test.
    if std::env::var("TESTCONTAINERS_COMMAND").is_ok_and(|command| command == "keep") {
        return;
    }
    CLEANUP.get_or_init(|| {
        let mut down = Command::new(format!("{SCRIPTS}/down"));
        down.args(["--when-closed", &owner()]);
        down.stdin(Stdio::piped());
        // A reader of this process's output waits for all processes that hold it.
        down.stdout(Stdio::null()).stderr(Stdio::null());
        // An interrupt from the terminal is sent to a whole process group, and would end both.
        std::os::unix::process::CommandExt::process_group(&mut down, 0);
        down.spawn().expect("tests/containers/down can be run")
    });
}

/// The label with the process that owns a container.
pub(crate) const OWNER: &str = "millstream.owner";

/// Returns the value of [`OWNER`].
pub(crate) fn owner() -> String {
    std::process::id().to_string()
}

/// Returns a free port on 127.0.0.1.
///
/// It is below the range of ephemeral ports. Otherwise a client's own connection could occupy the port of a
/// broker that is down, and keep the broker from restarting.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Concurrent processes begin at different ports.
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

/// Runs the engine's command line, for functions that the library does not offer.
pub(crate) async fn docker(args: &[&str]) {
    let output = Async::new("docker").args(args).output().await;
    let output = output.expect("the docker command can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {args:?}: {said}");
}

/// Returns the last log lines of a container. It blocks, because a destructor cannot await.
pub(crate) fn log_tail(container: &str) -> String {
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
