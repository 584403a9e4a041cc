use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::LazyLock;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;

use millstream_core::telemetry::{Causes, event};
use tokio::runtime;
use tokio::sync::watch;

/// Returns a future that completes at a signal to shut down: SIGTERM or Ctrl-C (SIGINT); on Windows,
/// Ctrl-C or the closing of the console.
///
/// Pass it to [`run`](crate::ConsumerGroup::run) as the shutdown: the consumer then drains,
/// checkpoints and releases its partitions. All futures complete at the first signal, and later
/// ones complete at once. **A second signal ends the process at once**, even when handlers block the
/// runtime, with the exit code that shells expect: 130 after Ctrl-C, 143 after SIGTERM.
///
/// From the first call on, a first signal no longer ends the process by itself, even if the future
/// was dropped. If signal handlers cannot be installed, a warning is logged, the future never
/// completes, and signals end the process as before.
///
/// # Cancel safety
/// Cancel safe: a signal is never missed between two futures.
///
/// # Examples
/// ```no_run
/// # async fn handle(_: millstream::Delivery) -> Result<(), std::io::Error> { Ok(()) }
/// # async fn demo() -> millstream::Result<()> {
/// let client = millstream::Settings::from_env("MILLSTREAM")?.connect().await?;
/// let group = client.group("notifications").stream("car-raw-events");
/// group.run(handle, millstream::shutdown_signal()).await
/// # }
/// ```
pub fn shutdown_signal() -> ShutdownSignal {
    let received = RECEIVED.clone();
    ShutdownSignal(Box::pin(async move {
        if let Some(mut received) = received {
            if received.wait_for(|received| *received).await.is_ok() {
                return;
            }
        }
        std::future::pending().await
    }))
}

/// Future that completes at a signal to shut down. Created by [`shutdown_signal`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct ShutdownSignal(Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl Future for ShutdownSignal {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for ShutdownSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShutdownSignal").finish_non_exhaustive()
    }
}

/// Whether the first signal was received. `None` if signals cannot be caught.
static RECEIVED: LazyLock<Option<watch::Receiver<bool>>> = LazyLock::new(|| match listen() {
    Ok(received) => Some(received),
    Err(error) => {
        event!(
            warn, "millstream.shutdown.uncaught", error = %Causes(&error),
            "shutdown signals are not caught: they end the process at once"
        );
        None
    }
});

/// Listens on a dedicated thread, so that it outlives the runtime of the first caller, and so that
/// the second signal works when a runtime is blocked.
fn listen() -> io::Result<watch::Receiver<bool>> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let (sender, received) = watch::channel(false);
    let (installed, ready) = mpsc::channel();
    thread::Builder::new()
        .name("millstream-signals".into())
        .spawn(move || {
            runtime.block_on(async {
                let mut signals = match Signals::install() {
                    Ok(signals) => {
                        let _ = installed.send(Ok(()));
                        signals
                    }
                    Err(error) => {
                        let _ = installed.send(Err(error));
                        return;
                    }
                };
                let name = signals.next().await.name;
                event!(
                    info,
                    "millstream.shutdown.signal",
                    signal = name,
                    "shutting down, a second signal ends at once"
                );
                sender.send_replace(true);
                let second = signals.next().await;
                std::process::exit(second.exit_code);
            });
        })?;
    ready
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the thread that listens has ended")))?;
    Ok(received)
}

struct Signal {
    name: &'static str,
    exit_code: i32,
}

const INTERRUPT: Signal = Signal {
    name: "interrupt",
    exit_code: 130,
};

const TERMINATE: Signal = Signal {
    name: "terminate",
    exit_code: 143,
};

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn install() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPT,
            _ = self.terminate.recv() => TERMINATE,
        }
    }
}

#[cfg(windows)]
struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
    close: tokio::signal::windows::CtrlClose,
}

#[cfg(windows)]
impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: tokio::signal::windows::ctrl_c()?,
            close: tokio::signal::windows::ctrl_close()?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPT,
            _ = self.close.recv() => TERMINATE,
        }
    }
}
