//! A service in this process, on a tokio runtime of its own, so that it can die like a process: everything it was doing
//! stops in the middle.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use coupon_core::service::Running;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::wait::DEADLINE;

/// A service that a test started.
pub struct Service {
    address: SocketAddr,
    admin: SocketAddr,
    stop: CancellationToken,
    alive: Mutex<Option<Alive>>,
}

struct Alive {
    runtime: Runtime,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Service {
    /// Starts a service with its `start` function.
    ///
    /// # Panics
    /// The service does not start.
    pub async fn start<F>(start: impl FnOnce(CancellationToken) -> F) -> Arc<Self>
    where
        F: Future<Output = anyhow::Result<Running>> + Send + 'static,
    {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let stop = CancellationToken::new();
        let started = runtime.spawn(start(stop.clone())).await.expect("the service panicked while it started");
        let Running { address, admin, task, .. } = match started {
            Ok(running) => running,
            Err(error) => {
                runtime.shutdown_background();
                panic!("the service did not start: {error:#}");
            }
        };
        Arc::new(Self { address, admin, stop, alive: Mutex::new(Some(Alive { runtime, task })) })
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address at which it reports its health and metrics.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Asks it to stop, and returns immediately.
    pub fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Stops it like SIGTERM, and waits until it has drained.
    ///
    /// # Panics
    /// The service fails, or does not drain.
    pub async fn stop(&self) {
        self.stop.cancel();
        let Some(Alive { runtime, mut task }) = self.take() else { return };
        let ended = tokio::time::timeout(DEADLINE, &mut task).await;
        runtime.shutdown_background();
        ended.expect("the service did not drain").expect("the service panicked").expect("the service failed");
    }

    /// Ends it like SIGKILL: nothing is finished, given back or closed properly.
    pub fn kill(&self) {
        if let Some(Alive { runtime, .. }) = self.take() {
            runtime.shutdown_background();
        }
    }

    fn take(&self) -> Option<Alive> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Service {
    /// Shuts the runtime down in the background, because a runtime must not be dropped in an async context.
    fn drop(&mut self) {
        self.kill();
    }
}
