//! The CPU time that programs have used, from the operating system.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

/// The servers, by the names of their programs.
pub const SERVERS: [(&str, &str); 4] =
    [("MySQL", "mysqld"), ("MySQL", "mariadbd"), ("Redis", "redis-server"), ("RabbitMQ", "beam.smp")];

/// The CPU time that programs have used since they started, by the name under which each is shown.
pub struct CpuTimes(BTreeMap<String, Duration>);

impl CpuTimes {
    /// Reads the times of processes with these ids, and of all processes of these programs.
    pub fn of<'a>(processes: impl IntoIterator<Item = (&'a str, u32)>, programs: &[(&str, &str)]) -> Self {
        let mut system = System::new();
        let kind = ProcessRefreshKind::nothing().with_cpu().with_cmd(UpdateKind::OnlyIfNotSet);
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
        let mut times: BTreeMap<String, Duration> = BTreeMap::new();
        for (name, id) in processes {
            if let Some(process) = system.process(Pid::from_u32(id)) {
                *times.entry(name.to_owned()).or_default() += Duration::from_millis(process.accumulated_cpu_time());
            }
        }
        for process in system.processes().values().filter(|process| process.thread_kind().is_none()) {
            if let Some((name, _)) = programs.iter().find(|(_, program)| is_of(process, program)) {
                let time = Duration::from_millis(process.accumulated_cpu_time());
                *times.entry((*name).to_owned()).or_default() += time;
            }
        }
        Self(times)
    }

    /// The time used since an earlier reading.
    pub fn since(&self, before: &Self) -> BTreeMap<String, Duration> {
        let taken = |(name, time): (&String, &Duration)| {
            (name.clone(), time.saturating_sub(before.0.get(name).copied().unwrap_or_default()))
        };
        self.0.iter().map(taken).collect()
    }
}

/// Whether a process runs a program. The program may have been started by a loader, which gives the process its own
/// name.
fn is_of(process: &Process, program: &str) -> bool {
    let is_named = |argument: &OsStr| Path::new(argument).file_name() == Some(OsStr::new(program));
    process.name() == program || process.cmd().iter().any(|argument| is_named(argument))
}
