use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::thread;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::OnceCell;

/// A broker that cases share. The first case that needs it starts it, so listing the cases needs no broker.
///
/// It lives on its own runtime, because it outlives the case that starts it. When the last clone is
/// dropped, so is the broker, on that runtime.
pub struct LazyBroker<T>(Arc<Inner<T>>);

struct Inner<T> {
    /// `None` once it is dropped.
    runtime: Option<Runtime>,
    broker: OnceCell<Arc<T>>,
    start: Box<dyn Fn() -> LocalBoxFuture<'static, T> + Send + Sync>,
}

impl<T: Send + Sync + 'static> LazyBroker<T> {
    /// Creates a broker that is not started yet.
    ///
    /// # Panics
    /// If the system has no threads left.
    pub fn new<F>(start: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = T> + 'static,
    {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build();
        Self(Arc::new(Inner {
            runtime: Some(runtime.expect("the system has threads left for a runtime")),
            broker: OnceCell::new(),
            start: Box::new(move || start().boxed_local()),
        }))
    }

    /// Returns the broker. The first call starts it. Blocks the thread meanwhile.
    ///
    /// # Panics
    /// If it does not start.
    pub fn get(&self) -> Arc<T> {
        let Inner {
            runtime,
            broker,
            start,
        } = &*self.0;
        if let Some(broker) = broker.get() {
            return broker.clone();
        }
        let runtime = runtime.as_ref().expect("it is not dropped");
        let start = || async { Arc::new(start().await) };
        // A thread that runs a case's runtime cannot wait for another runtime.
        let started = thread::scope(|scope| {
            let starter = scope.spawn(|| runtime.block_on(broker.get_or_init(start)).clone());
            starter.join()
        });
        started.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl<T> Clone for LazyBroker<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for LazyBroker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyBroker")
            .field("started", &self.0.broker.initialized())
            .finish_non_exhaustive()
    }
}

impl<T> Drop for Inner<T> {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        // A hung case may drop the last clone on its own runtime, while the process ends.
        if Handle::try_current().is_ok() {
            return runtime.shutdown_background();
        }
        let broker = self.broker.take();
        runtime.block_on(async { drop(broker) });
    }
}
