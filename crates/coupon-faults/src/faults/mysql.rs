//! Faults of MySQL: it takes no writes, has no connection left, or ends sessions.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::Scene;
use crate::schedule::Kind;

/// Restores the connection limit that `deploy/mysql/coupon.cnf` sets.
const CONNECTIONS: &str = "SET GLOBAL max_connections = 500";

/// How often sessions are ended.
const KILL_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn play(scene: &Scene) -> anyhow::Result<()> {
    // Connects first, because there may be no connection left later.
    let mut conn = scene.stage.mysql().await?;
    scene.begins().await;
    match scene.fault.kind {
        Kind::ReadOnly => {
            conn.query_drop("SET GLOBAL super_read_only = ON").await?;
            scene.lasts().await;
            conn.query_drop("SET GLOBAL super_read_only = OFF").await?;
            conn.query_drop("SET GLOBAL read_only = OFF").await?;
        }
        Kind::TooManyConnections => {
            conn.query_drop("SET GLOBAL max_connections = 1").await?;
            end_sessions(&mut conn).await?;
            scene.lasts().await;
            conn.query_drop(CONNECTIONS).await?;
        }
        _ => {
            while scene.is_on() {
                end_sessions(&mut conn).await?;
                tokio::time::sleep(KILL_EVERY).await;
            }
        }
    }
    Ok(conn.disconnect().await?)
}

/// Ends every session of the programs. Ignores errors, because a session may have ended by itself meanwhile.
async fn end_sessions(conn: &mut Conn) -> anyhow::Result<()> {
    let rows: Vec<Row> = conn.query("SHOW PROCESSLIST").await?;
    for row in rows {
        let user: Option<String> = row.get("User");
        let id: Option<u64> = row.get("Id");
        if let (Some("producer-api" | "queue-consumer" | "skiplock-api"), Some(id)) = (user.as_deref(), id) {
            let _ = conn.query_drop(format!("KILL {id}")).await;
        }
    }
    Ok(())
}
