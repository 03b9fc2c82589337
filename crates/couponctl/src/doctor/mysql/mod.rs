//! MySQL: the settings that the guarantees depend on, the schema, rights, and any proxy between us and the server.

mod rights;
mod schema;
mod settings;
mod snapshots;

use coupon_core::mysql::{self, Mysql};
use coupon_core::settings::ServerUrl;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use time::{OffsetDateTime, PrimitiveDateTime};

use super::Program;
use super::sheet::{Sheet, Variables};
use crate::servers::Servers;

const UNKNOWN_DATABASE: u16 = 1049;

pub async fn check(sheet: &mut Sheet, servers: &Servers, programs: &[Program]) -> anyhow::Result<()> {
    let url = &servers.mysql.mysql_url;
    let connect = async |url: &ServerUrl| {
        mysql::connect(mysql::reach(url, &servers.mysql.tls), servers.mysql.mysql_deadline).await
    };
    // No session settings are changed, so that the server's own defaults show.
    let (mut conn, has_database) = match connect(url).await {
        Ok(conn) => (conn, true),
        Err(coupon_core::Error::Mysql(Error::Server(error))) if error.code == UNKNOWN_DATABASE => {
            sheet.wrong("database", &error.message, "run `couponctl migrate`");
            (connect(&url.with_path("")).await?, false)
        }
        Err(error) => {
            sheet.not_reached("reachable", &format!("{url}: {error}"), mysql::remedy_of_not_reached(url, &error));
            return Ok(());
        }
    };
    let id = conn.id();
    let examined = async { Ok(examine(sheet, servers, programs, &mut conn, has_database).await) };
    // Ends early if the server falls silent.
    Mysql::new(&servers.mysql).attended(&[id], examined).await??;
    Ok(conn.disconnect().await?)
}

async fn examine(
    sheet: &mut Sheet,
    servers: &Servers,
    programs: &[Program],
    conn: &mut Conn,
    has_database: bool,
) -> anyhow::Result<()> {
    let url = &servers.mysql.mysql_url;
    let user: Option<String> = conn.query_first("SELECT CURRENT_USER()").await?;
    let user = user.unwrap_or_default();
    sheet.ok("reachable", &format!("{url} as {user}"));
    let global: Variables = pairs(conn, "SHOW GLOBAL VARIABLES").await?;
    let session: Variables = pairs(conn, "SHOW SESSION VARIABLES").await?;
    let status: Variables = pairs(conn, "SHOW GLOBAL STATUS").await?;
    settings::check(sheet, &global, &session, &status);
    settings::check_connections(sheet, &global, &status, u64::from(servers.mysql.mysql_connections));

    let before = OffsetDateTime::now_utc();
    let now: Option<PrimitiveDateTime> = conn.query_first("SELECT UTC_TIMESTAMP(6)").await?;
    sheet.clock(now.unwrap_or(PrimitiveDateTime::MIN).assume_utc(), before, OffsetDateTime::now_utc());

    if has_database {
        schema::check_version(sheet, conn).await?;
        schema::check_tables(sheet, conn).await?;
        for program in programs {
            rights::check(sheet, conn, *program, &user).await?;
        }
    } else {
        sheet.not_checked("schema and rights", &"there is no database to check them in");
    }
    one_server(sheet, conn).await?;
    named_locks(sheet, conn).await;
    snapshots::check(sheet, conn).await;
    Ok(())
}

async fn pairs(conn: &mut Conn, statement: &str) -> Result<Variables, Error> {
    Ok(conn.query::<(String, String), _>(statement).await?.into_iter().collect())
}

/// Checks that reads go to the same server as writes. A replica may not have the newest coupons yet, or may still show
/// issued ones as free.
async fn one_server(sheet: &mut Sheet, conn: &mut Conn) -> Result<(), Error> {
    let identity = if conn.server_version() < (10, 0, 0) { "@@server_uuid" } else { "@@server_id" };
    let question = format!("SELECT CONCAT_WS(' ', CONCAT(@@hostname, ':', @@port), {identity})");
    conn.query_drop("START TRANSACTION").await?;
    let writes: Option<String> = conn.query_first(format!("{question} FOR UPDATE")).await?;
    conn.query_drop("ROLLBACK").await?;
    let mut reads: Vec<String> = Vec::new();
    // A proxy may have several replicas to choose from.
    for _ in 0..5 {
        reads.extend(conn.query_first::<String, _>(&question).await?);
    }
    same_server(sheet, &writes.unwrap_or_default(), &reads);
    Ok(())
}

fn same_server(sheet: &mut Sheet, writes: &str, reads: &[String]) {
    match reads.iter().find(|reads| *reads != writes) {
        None => sheet.ok("one server", &format!("reads and writes go to {writes}")),
        Some(reads) => sheet.wrong(
            "one server",
            &format!("a plain SELECT goes to {reads}, one FOR UPDATE to {writes}"),
            "let the proxy send all of our statements to the primary: from a replica that lags, \"sold out\" is no proof, \
             and a winner is not found",
        ),
    }
}

/// Nothing of ours needs named locks now; clusters refuse them, and an operator's tools may need them.
async fn named_locks(sheet: &mut Sheet, conn: &mut Conn) {
    match conn.query_first::<Option<u8>, _>("SELECT GET_LOCK('coupon.doctor', 0)").await {
        Ok(_) => {
            // The lock ends with the connection at the latest.
            let _ = conn.query_drop("DO RELEASE_LOCK('coupon.doctor')").await;
            sheet.ok("named locks", "GET_LOCK is allowed");
        }
        Err(error) => {
            sheet.warning("named locks", &error.to_string(), "nothing to do for the services, which need none");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sheet::Verdict;
    use super::*;

    #[test]
    fn reads_from_another_server_are_found() {
        let mut sheet = Sheet::of("MySQL");
        same_server(&mut sheet, "a:3306 1", &[String::from("a:3306 1"), String::from("b:3306 2")]);
        same_server(&mut sheet, "a:3306 1", &[String::from("a:3306 1")]);

        let verdicts: Vec<Verdict> = sheet.into_findings().iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Wrong, Verdict::Ok]);
    }
}
