//! The memory of services under load: their resident sets, sampled twice per second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::task::AbortHandle;

use super::service::Service;
use crate::statistics::median;

const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// The memory of a service, in MiB.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    pub program: String,
    pub peak_mib: f64,
    /// The median of each fifth of the time, because a single sample may fall in a moment when pages come or go.
    pub fifths_mib: Vec<f64>,
    /// The time from the start of the service to its first answer that it is ready.
    pub ready_in_seconds: f64,
}

struct Watched {
    program: String,
    ready_in: Duration,
    pid: Pid,
    mib: Vec<f64>,
}

/// Samples memory until it is dropped.
pub struct Watch {
    watched: Arc<Mutex<Vec<Watched>>>,
    task: AbortHandle,
}

impl Watch {
    /// Starts sampling these services.
    pub fn start<'a>(services: impl IntoIterator<Item = &'a Service>) -> Self {
        let watched: Arc<Mutex<Vec<Watched>>> = Arc::default();
        let task = tokio::spawn(sample(Arc::clone(&watched))).abort_handle();
        let watch = Self { watched, task };
        for service in services {
            watch.add(service);
        }
        watch
    }

    /// Starts sampling this service too.
    pub fn add(&self, service: &Service) {
        if let Some(pid) = service.pid() {
            let (program, ready_in) = (service.program.clone(), service.ready_in);
            lock(&self.watched).push(Watched { program, ready_in, pid: Pid::from_u32(pid), mib: Vec::new() });
        }
    }

    /// Ends sampling and returns the memory of each service.
    pub fn end(self) -> Vec<Memory> {
        lock(&self.watched).iter().map(Watched::memory).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    fn memory(&self) -> Memory {
        Memory {
            program: self.program.clone(),
            peak_mib: self.mib.iter().copied().fold(0.0, f64::max),
            fifths_mib: self
                .mib
                .chunks(self.mib.len().div_ceil(5).max(1))
                .map(|fifth| median(fifth.iter().copied()))
                .collect(),
            ready_in_seconds: self.ready_in.as_secs_f64(),
        }
    }
}

async fn sample(watched: Arc<Mutex<Vec<Watched>>>) {
    let mut system = System::new();
    let mut interval = tokio::time::interval(SAMPLE_EVERY);
    loop {
        interval.tick().await;
        for watched in lock(&watched).iter_mut() {
            let only_memory = ProcessRefreshKind::nothing().with_memory();
            system.refresh_processes_specifics(ProcessesToUpdate::Some(&[watched.pid]), true, only_memory);
            if let Some(process) = system.process(watched.pid) {
                watched.mib.push(process.memory() as f64 / f64::from(1 << 20));
            }
        }
    }
}

fn lock(watched: &Mutex<Vec<Watched>>) -> MutexGuard<'_, Vec<Watched>> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}
