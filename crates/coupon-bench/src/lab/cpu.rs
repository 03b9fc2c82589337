//! CPU time that programs have taken, from the operating system.

use std::collections::BTreeMap;
use std::time::Duration;

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// The time that each of some programs has taken since it started, by the name under which it is shown.
pub struct CpuTimes(BTreeMap<String, Duration>);

impl CpuTimes {
    /// Of processes by their ids, and of all processes of these programs.
    pub fn of<'a>(processes: impl IntoIterator<Item = (&'a str, u32)>, programs: &[(&str, &str)]) -> Self {
        let mut system = System::new();
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, ProcessRefreshKind::nothing().with_cpu());
        let mut times: BTreeMap<String, Duration> = BTreeMap::new();
        for (name, id) in processes {
            if let Some(process) = system.process(Pid::from_u32(id)) {
                *times.entry(name.to_owned()).or_default() += Duration::from_millis(process.accumulated_cpu_time());
            }
        }
        for process in system.processes().values().filter(|process| process.thread_kind().is_none()) {
            if let Some((name, _)) = programs.iter().find(|(_, program)| process.name() == *program) {
                let time = Duration::from_millis(process.accumulated_cpu_time());
                *times.entry((*name).to_owned()).or_default() += time;
            }
        }
        Self(times)
    }

    /// What was taken since an earlier moment.
    pub fn since(&self, before: &Self) -> BTreeMap<String, Duration> {
        let taken = |(name, time): (&String, &Duration)| {
            (name.clone(), time.saturating_sub(before.0.get(name).copied().unwrap_or_default()))
        };
        self.0.iter().map(taken).collect()
    }
}
