//! Faults of Redis: it loses everything, or the latest writes, or consumers refill at the same time.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use deadpool_redis::redis::{self, Cmd};

use super::Scene;
use crate::schedule::Kind;
use crate::stage::Names;

/// How often the locks vanish.
const UNLOCK_EVERY: Duration = Duration::from_millis(10);

pub(super) async fn play(scene: &Scene) -> anyhow::Result<()> {
    match scene.fault.kind {
        Kind::FlushRedis => {
            scene.begins().await;
            scene.stage.redis(&redis::cmd("FLUSHALL")).await
        }
        Kind::OlderRedis => come_back_older(scene).await,
        Kind::TwoRefillers => refill_twice(scene).await,
        _ => refill_late(scene).await,
    }
}

/// Copies the append-only file, and restores the copy a while later.
async fn come_back_older(scene: &Scene) -> anyhow::Result<()> {
    let server = scene.stage.server("redis")?;
    let (file, copy) = (server.folder().join("data/appendonlydir"), server.folder().join("older"));
    copy_folder(&file, &copy)?;
    scene.lasts().await;
    scene.begins().await;
    server.kill().await?;
    copy_folder(&copy, &file)?;
    server.start().await
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Deletes locks and lists over and over: without its lock, a refill is not alone; without the list, consumers refill
/// all the time.
async fn refill_twice(scene: &Scene) -> anyhow::Result<()> {
    let names = |what| scene.stage.keys_of(scene.clients.campaigns.numbers(), what);
    let keys = [names(Names::Locks), names(Names::Lists)].concat();
    scene.begins().await;
    while scene.is_on() {
        scene.stage.redis(&Cmd::del(&keys)).await?;
        tokio::time::sleep(UNLOCK_EVERY).await;
    }
    Ok(())
}

/// Stops a consumer that may hold the lock until another one holds it, then lets it continue.
async fn refill_late(scene: &Scene) -> anyhow::Result<()> {
    let program = scene.stage.program(&scene.fault.target)?;
    let lists = scene.stage.keys_of(scene.clients.campaigns.numbers(), Names::Lists);
    scene.begins().await;
    scene.stage.redis(&Cmd::del(&lists)).await?;
    program.send("STOP").await?;
    scene.lasts().await;
    program.send("CONT").await
}
