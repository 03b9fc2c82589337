//! Faults of any server: it is killed or paused.

use super::Scene;
use crate::schedule::Kind;

pub(super) async fn play(scene: &Scene) -> anyhow::Result<()> {
    let server = scene.stage.server(&scene.fault.target)?;
    scene.begins().await;
    if scene.fault.kind == Kind::PauseServer {
        server.send("STOP").await?;
        scene.lasts().await;
        return server.send("CONT").await;
    }
    server.kill().await?;
    scene.lasts().await;
    server.start().await
}
