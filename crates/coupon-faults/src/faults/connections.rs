//! Faults of connections: they break, are slow, or carry nothing.

use std::time::Duration;

use coupon_testkit::Proxy;

use super::Scene;
use crate::schedule::Kind;

/// The shortest delay, and how much longer it may be, in milliseconds, in each direction.
const DELAY_MS: (u64, u64) = (20, 200);

/// The fewest bytes that may still pass, and how many more may: several claims, or part of one.
const BYTES: (u64, u64) = (50, 4_000);

pub(super) async fn play(scene: &Scene) -> anyhow::Result<()> {
    let proxies = scene.stage.link(&scene.fault.target)?;
    scene.begins().await;
    proxies.iter().try_for_each(|proxy| breaks(scene, proxy))?;
    scene.lasts().await;
    proxies.iter().for_each(Proxy::heal);
    Ok(())
}

fn breaks(scene: &Scene, proxy: &Proxy) -> anyhow::Result<()> {
    match scene.fault.kind {
        Kind::Cut => proxy.cut(),
        Kind::Delay => proxy.delay(Duration::from_millis(DELAY_MS.0 + scene.chance(DELAY_MS.1))),
        Kind::Freeze => proxy.freeze(),
        _ => proxy.cut_after(usize::try_from(BYTES.0 + scene.chance(BYTES.1))?),
    }
    Ok(())
}
