//! Faults of programs: they are killed, stopped, paused, or restarted with other settings.
//!
//! Invariant: every setting used is one that an operator may choose, and the guarantees hold under any combination of
//! them.

use super::Scene;
use crate::schedule::{INSTANCES, Kind};
use crate::stage::program_of;

/// Settings for a rolling restart of producer-api, queue-consumer and skiplock-api.
const OTHERS: [(&str, [&str; 3]); 3] = [
    ("producer-api", ["--claims-per-message=1", "--claims-per-message=3", "--claims-per-message=100"]),
    ("queue-consumer", ["--batch-max=1 --prefetch=1", "--batch-max=50 --refill-max=7", "--batch-max=500"]),
    ("skiplock-api", ["--strategy=select-update", "--strategy=single-statement", "--strategy=coalesced --groups=4"]),
];

pub(super) async fn play(scene: &Scene) -> anyhow::Result<()> {
    if scene.fault.kind == Kind::RollingRestart {
        return restart_all(scene).await;
    }
    let program = scene.stage.program(&scene.fault.target)?;
    scene.begins().await;
    match scene.fault.kind {
        Kind::KillProgram => program.kill().await?,
        Kind::StopProgram => program.stop().await?,
        _ => program.send("STOP").await?,
    }
    scene.lasts().await;
    match scene.fault.kind {
        Kind::PauseProgram => program.send("CONT").await,
        _ => program.start().await,
    }
}

async fn restart_all(scene: &Scene) -> anyhow::Result<()> {
    scene.begins().await;
    for name in INSTANCES {
        let others = OTHERS.iter().find(|(program, _)| *program == program_of(name)).map(|(_, others)| others);
        let index = usize::try_from(scene.chance(3))?;
        let own = others.and_then(|others| others.get(index)).copied().unwrap_or_default();
        scene.stage.program(name)?.restart_with(own.split_whitespace().map(String::from).collect()).await?;
    }
    Ok(())
}
