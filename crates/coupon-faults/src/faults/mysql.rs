//! A MySQL that takes no writes, has no connection left, or ends sessions.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::Scene;
use crate::schedule::Kind;

/// Connections that MySQL takes as set in `deploy/mysql/coupon.cnf`.
const CONNECTIONS: &str = "SET GLOBAL max_connections = 500";

/// How often sessions are ended.
const KILL_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn play(scene: &Scene) -> anyhow::Result<()> {
    // Made before, as there may be none to be had later.
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

/// Ends every session of a program. One may have ended by itself meanwhile.
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
