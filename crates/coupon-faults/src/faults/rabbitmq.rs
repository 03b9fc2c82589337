//! Faults of RabbitMQ: it takes no messages, because its queue is full or it is short of memory or disk.

use serde_json::json;

use super::Scene;
use crate::schedule::{CONSUMERS, Kind};

pub(super) async fn play(scene: &Scene) -> anyhow::Result<()> {
    scene.begins().await;
    // Each ends by restoring the limits that `deploy/rabbitmq/rabbitmq.conf` sets.
    match scene.fault.kind {
        Kind::QueueFull => fill(scene).await,
        Kind::MemoryAlarm => {
            let memory = "set_vm_memory_high_watermark";
            with_limits(scene, &[memory, "absolute", "1"], &[memory, "absolute", "1GB"]).await
        }
        _ => with_limits(scene, &["set_disk_free_limit", "1000000GB"], &["set_disk_free_limit", "1GB"]).await,
    }
}

async fn fill(scene: &Scene) -> anyhow::Result<()> {
    let queues = &scene.stage.space.queues;
    queues.set_policy(&json!({"max-length": 1})).await;
    for consumer in CONSUMERS {
        scene.stage.program(consumer)?.send("STOP").await?;
    }
    scene.lasts().await;
    for consumer in CONSUMERS {
        scene.stage.program(consumer)?.send("CONT").await?;
    }
    queues.clear_policy().await;
    Ok(())
}

async fn with_limits(scene: &Scene, low: &[&str], normal: &[&str]) -> anyhow::Result<()> {
    let server = scene.stage.server("rabbitmq")?;
    server.rabbitmqctl(low).await?;
    scene.lasts().await;
    server.rabbitmqctl(normal).await?;
    Ok(())
}
