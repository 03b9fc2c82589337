//! MySQL: the settings that promises rest on, the schema, rights, and what stands between us and the server.

use coupon_core::mysql::{self, schema};
use coupon_core::settings::ServerUrl;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row, ServerError};
use time::{OffsetDateTime, PrimitiveDateTime};

use super::Program;
use super::sheet::{Sheet, Variables};
use crate::Couponctl;

/// A statement of ours is shorter than this, whichever it is.
const PACKET_MIN: u64 = 1024 * 1024;

/// A transaction that is open for longer keeps versions of rows which every claim then reads past.
const SNAPSHOT_MAX_SECONDS: u64 = 600;

/// Changes that wait to be purged: each read may have to go through them.
const HISTORY_MAX: u64 = 1_000_000;

const NO_SUCH_TABLE: u16 = 1146;
const UNKNOWN_DATABASE: u16 = 1049;

/// That a user lacks a right: to a database, a table, a column, or a privilege of the whole server.
const DENIED: [u16; 4] = [1044, 1142, 1143, 1227];

pub async fn look(sheet: &mut Sheet, couponctl: &Couponctl, programs: &[Program]) -> anyhow::Result<()> {
    let url = &couponctl.mysql.mysql_url;
    let mut conn = match tokio::time::timeout(couponctl.mysql.mysql_deadline, connect(url)).await {
        Ok(Ok(conn)) => conn,
        Ok(Err(Error::Server(error))) if error.code == UNKNOWN_DATABASE => {
            sheet.wrong("database", &error.message, "run `couponctl migrate`");
            connect(&url.with_path("")).await?
        }
        Ok(Err(error)) => {
            sheet.not_checked("reachable", &error);
            return Ok(());
        }
        Err(_) => {
            sheet.not_checked("reachable", &format!("{url} does not answer in {:?}", couponctl.mysql.mysql_deadline));
            return Ok(());
        }
    };
    let user: Option<String> = conn.query_first("SELECT CURRENT_USER()").await?;
    let user = user.unwrap_or_default();
    sheet.ok("reachable", &format!("{url} as {user}"));
    let global: Variables = pairs(&mut conn, "SHOW GLOBAL VARIABLES").await?;
    let session: Variables = pairs(&mut conn, "SHOW SESSION VARIABLES").await?;
    let status: Variables = pairs(&mut conn, "SHOW GLOBAL STATUS").await?;
    settings(sheet, &global, &session, &status);
    connections(sheet, &global, &status, u64::from(couponctl.mysql.mysql_connections));

    let before = OffsetDateTime::now_utc();
    let now: Option<PrimitiveDateTime> = conn.query_first("SELECT UTC_TIMESTAMP(6)").await?;
    sheet.clock(now.unwrap_or(PrimitiveDateTime::MIN).assume_utc(), before, OffsetDateTime::now_utc());

    schema(sheet, &mut conn).await?;
    tables(sheet, &mut conn).await?;
    for program in programs {
        rights(sheet, &mut conn, *program, &user).await?;
    }
    one_server(sheet, &mut conn).await?;
    named_locks(sheet, &mut conn).await;
    snapshots(sheet, &mut conn).await;
    Ok(conn.disconnect().await?)
}

/// As the server greets: nothing is set on this connection.
async fn connect(url: &ServerUrl) -> Result<Conn, Error> {
    Conn::new(mysql::reach(url)).await
}

async fn pairs(conn: &mut Conn, statement: &str) -> Result<Variables, Error> {
    Ok(conn.query::<(String, String), _>(statement).await?.into_iter().collect())
}

/// What the server is set to, be it for all or for a session of this user.
fn settings(sheet: &mut Sheet, global: &Variables, session: &Variables, status: &Variables) {
    version(sheet, global.get("version"));
    writable(sheet, global, session);
    commits(sheet, global, session);
    durability(sheet, global, status);
    binary_log(sheet, global);
    sql_mode(sheet, global.get("sql_mode"));
    packet(sheet, global.number("max_allowed_packet").unwrap_or(u64::MAX));
    let isolation = [global.get("transaction_isolation"), global.get("tx_isolation")].concat();
    sheet.ok("isolation", &format!("{isolation} by default; the services set READ COMMITTED for themselves"));
}

fn version(sheet: &mut Sheet, version: &str) {
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let (name, least) = if version.contains("MariaDB") { ("MariaDB", (10, 6)) } else { ("MySQL", (8, 0)) };
    if found >= least {
        sheet.ok("version", &format!("{name} {version}"));
    } else {
        let remedy = "MySQL 8.0 or MariaDB 10.6 is the first that skips locked rows";
        sheet.wrong("version", &format!("{name} {version}"), remedy);
    }
}

fn writable(sheet: &mut Sheet, global: &Variables, session: &Variables) {
    let names =
        ["read_only", "super_read_only", "innodb_read_only", "transaction_read_only", "tx_read_only", "offline_mode"];
    let on: Vec<String> = names
        .iter()
        .filter(|name| global.is_on(name) || session.is_on(name))
        .map(|name| format!("{name} = {}", [global.get(name), session.get(name)].iter().max().unwrap_or(&"ON")))
        .collect();
    if on.is_empty() {
        return sheet.ok("takes writes", "read_only, super_read_only and the like are off");
    }
    sheet.wrong(
        "takes writes",
        &on.join(", "),
        "name the primary in COUPON_MYSQL_URL, or switch these off if it is the primary",
    );
}

/// Whether a statement by itself is committed.
fn commits(sheet: &mut Sheet, global: &Variables, session: &Variables) {
    let init = global.get("init_connect");
    if !global.is_on("autocommit") || !session.is_on("autocommit") {
        sheet.wrong(
            "autocommit",
            &format!("global {}, in a session of this user {}", global.get("autocommit"), session.get("autocommit")),
            "SET PERSIST autocommit = ON, and nothing about it in init_connect: without it, what a session writes is gone \
             when the session ends",
        );
    } else if init.is_empty() {
        sheet.ok("autocommit", "ON, and init_connect is empty");
    } else {
        let remedy = "see that it changes nothing that statements rest on; it is run for each user without SUPER";
        sheet.warning("init_connect", init, remedy);
    }
}

/// Whether a commit survives a power cut.
fn durability(sheet: &mut Sheet, global: &Variables, status: &Variables) {
    let mut lost: Vec<String> = Vec::new();
    let mut flaw = |is_flawed: bool, name: &str, value: &str, better: &str| {
        if is_flawed {
            lost.push(format!("{name} = {value}, not {better}"));
        }
    };
    let flush = "innodb_flush_log_at_trx_commit";
    flaw(global.get(flush) != "1", flush, global.get(flush), "1");
    let sync = global.get("sync_binlog");
    flaw(global.is_on("log_bin") && sync != "1", "sync_binlog", sync, "1");
    let doublewrite = global.get("innodb_doublewrite");
    flaw(matches!(doublewrite, "OFF" | "0" | "DETECT_ONLY"), "innodb_doublewrite", doublewrite, "ON");
    flaw(status.get("innodb_redo_log_enabled") == "OFF", "Innodb_redo_log_enabled", "OFF", "ON");
    if lost.is_empty() {
        return sheet.ok("durability", "each commit is flushed to the redo log and the binary log");
    }
    sheet.wrong(
        "durability",
        &lost.join("; "),
        "set them so (deploy/mysql/coupon.cnf): coupons that were given out may be free again after a crash",
    );
}

fn binary_log(sheet: &mut Sheet, global: &Variables) {
    let format = global.get("binlog_format");
    if global.is_on("log_bin") && format == "STATEMENT" {
        let remedy = "SET PERSIST binlog_format = ROW: under READ COMMITTED each UPDATE fails with error 1665";
        return sheet.wrong("binary log", "binlog_format = STATEMENT", remedy);
    }
    sheet.ok("binary log", &format!("log_bin = {}, binlog_format = {format}", global.get("log_bin")));
}

fn sql_mode(sheet: &mut Sheet, mode: &str) {
    if mode.contains("STRICT_TRANS_TABLES") || mode.contains("STRICT_ALL_TABLES") {
        return sheet.ok("sql_mode", mode);
    }
    let remedy = "add STRICT_TRANS_TABLES: without it, values that do not fit are cut instead of refused";
    sheet.warning("sql_mode", if mode.is_empty() { "empty" } else { mode }, remedy);
}

fn packet(sheet: &mut Sheet, bytes: u64) {
    let found = format!("max_allowed_packet = {bytes}");
    if bytes >= PACKET_MIN {
        return sheet.ok("packets", &found);
    }
    sheet.wrong("packets", &found, "SET PERSIST max_allowed_packet = 67108864: coupons are loaded thousands at a time");
}

fn connections(sheet: &mut Sheet, global: &Variables, status: &Variables, each: u64) {
    let max = global.number("max_connections").unwrap_or(0);
    let open = status.number("threads_connected").unwrap_or(0);
    let peak = status.number("max_used_connections").unwrap_or(0);
    let own = global.number("max_user_connections").unwrap_or(0);
    let found = format!("{max} at most, {open} open, {peak} at the peak; each process of ours keeps up to {each}");
    if own > 0 && own < each {
        let remedy = "raise it, or lower MYSQL_CONNECTIONS";
        sheet.wrong(
            "connections",
            &format!("max_user_connections = {own}, and a process of ours keeps {each}"),
            remedy,
        );
    } else if max.saturating_sub(open) < each {
        let remedy = "raise max_connections, or lower MYSQL_CONNECTIONS: one more process would not get all of its own";
        sheet.warning("connections", &found, remedy);
    } else {
        sheet.ok("connections", &found);
    }
}

async fn schema(sheet: &mut Sheet, conn: &mut Conn) -> Result<(), Error> {
    let wanted = schema::wanted();
    let version = conn.query_first::<Option<u32>, _>("SELECT MAX(version) FROM refinery_schema_history").await;
    let found = match version {
        Ok(version) => version.flatten().unwrap_or(0),
        Err(Error::Server(error)) if error.code == NO_SUCH_TABLE => 0,
        Err(Error::Server(error)) => {
            sheet.wrong("schema", &error.message, "see the rights below");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let text = format!("version {found}; this build is for {wanted}");
    match found {
        _ if found == wanted => sheet.ok("schema", &text),
        _ if found < wanted => sheet.wrong("schema", &text, "run `couponctl migrate`"),
        _ => sheet.wrong("schema", &text, "run newer builds of all programs"),
    }
    Ok(())
}

/// Keys, engine and triggers, as far as the tables are there.
async fn tables(sheet: &mut Sheet, conn: &mut Conn) -> Result<(), Error> {
    match conn.query::<Row, _>("SHOW INDEX FROM coupon").await {
        Ok(rows) => {
            let keys: Vec<KeyColumn> = rows.iter().map(KeyColumn::of).collect();
            key(sheet, &keys, "PRIMARY", &["campaign_id", "id"], "ADD PRIMARY KEY (campaign_id, id)");
            let remedy = "ADD UNIQUE KEY coupon_campaign_account (campaign_id, account_id)";
            key(sheet, &keys, "coupon_campaign_account", &["campaign_id", "account_id"], remedy);
        }
        Err(Error::Server(error)) => {
            sheet.wrong("keys", &error.message, "run `couponctl migrate`, or see the rights below");
        }
        Err(error) => return Err(error),
    }
    let engines: Vec<(String, Option<String>)> = conn
        .query(
            "SELECT table_name, engine FROM information_schema.tables \
             WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'",
        )
        .await?;
    let others: Vec<String> = engines
        .iter()
        .filter(|(_, engine)| engine.as_deref() != Some("InnoDB"))
        .map(|(table, engine)| format!("{table} is {}", engine.as_deref().unwrap_or("without one")))
        .collect();
    if others.is_empty() {
        sheet.ok("engine", &format!("InnoDB, for each of {} tables", engines.len()));
    } else {
        let remedy = "ALTER TABLE … ENGINE = InnoDB: others know no transactions and no locks on rows";
        sheet.wrong("engine", &others.join(", "), remedy);
    }
    let triggers: Vec<String> = conn
        .query(
            "SELECT CONCAT(trigger_name, ' ', LOWER(action_timing), ' ', event_manipulation, ' of ', event_object_table) \
             FROM information_schema.triggers WHERE event_object_schema = DATABASE()",
        )
        .await?;
    if triggers.is_empty() {
        sheet.ok("triggers", "none that this user may see");
    } else {
        let remedy = "take them away, unless you know what each does: one that fails refuses each issue of a coupon";
        sheet.warning("triggers", &triggers.join(", "), remedy);
    }
    Ok(())
}

/// A column of a key of the table.
struct KeyColumn {
    key: String,
    column: String,
    position: u64,
    is_unique: bool,
    is_used: bool,
}

impl KeyColumn {
    fn of(row: &Row) -> Self {
        let text = |name: &str| row.get::<Option<String>, _>(name).flatten().unwrap_or_default();
        Self {
            key: text("Key_name"),
            column: text("Column_name"),
            position: row.get::<Option<u64>, _>("Seq_in_index").flatten().unwrap_or(0),
            is_unique: row.get::<Option<u64>, _>("Non_unique").flatten() == Some(0),
            // MySQL says whether it is visible, MariaDB whether it is ignored.
            is_used: text("Visible") != "NO" && text("Ignored") != "YES",
        }
    }
}

fn key(sheet: &mut Sheet, columns: &[KeyColumn], name: &str, wanted: &[&str], remedy: &str) {
    let mut found: Vec<&KeyColumn> = columns.iter().filter(|column| column.key == name).collect();
    found.sort_unstable_by_key(|column| column.position);
    let names: Vec<&str> = found.iter().map(|column| column.column.as_str()).collect();
    let check = format!("key {name}");
    if names == wanted && found.iter().all(|column| column.is_unique && column.is_used) {
        return sheet.ok(&check, &format!("unique, of {}", names.join(", ")));
    }
    let flaw = if found.is_empty() {
        String::from("it is not there")
    } else if found.iter().any(|column| !column.is_unique) {
        format!("it is not unique, of {}", names.join(", "))
    } else if found.iter().any(|column| !column.is_used) {
        String::from("it is invisible, and our statements name it")
    } else {
        format!("it is of {}", names.join(", "))
    };
    sheet.wrong(&check, &flaw, &format!("ALTER TABLE coupon {remedy}: this key is what makes each issue right"));
}

/// What a program does in MySQL: the right as GRANT names it, and a statement that needs it and touches no row.
fn needs(program: Program) -> Vec<(&'static str, &'static str)> {
    let mut needs = vec![
        ("SELECT ON refinery_schema_history", "SELECT * FROM refinery_schema_history LIMIT 0"),
        ("SELECT ON campaign", "SELECT * FROM campaign LIMIT 0"),
        ("SELECT ON coupon", "SELECT * FROM coupon LIMIT 0"),
    ];
    if program != Program::SkiplockApi {
        needs.push(("SELECT ON installation", "SELECT * FROM installation LIMIT 0"));
    }
    if program != Program::ProducerApi {
        needs.push(("UPDATE (account_id) ON coupon", "UPDATE coupon SET account_id = account_id WHERE FALSE"));
    }
    if program == Program::Couponctl {
        needs.extend([
            ("INSERT ON campaign", "INSERT INTO campaign SELECT * FROM campaign WHERE FALSE"),
            ("UPDATE ON campaign", "UPDATE campaign SET coupons = coupons WHERE FALSE"),
            ("DELETE ON campaign", "DELETE FROM campaign WHERE FALSE"),
            ("INSERT ON coupon", "INSERT INTO coupon SELECT * FROM coupon WHERE FALSE"),
            ("DELETE ON coupon", "DELETE FROM coupon WHERE FALSE"),
        ]);
    }
    needs
}

async fn rights(sheet: &mut Sheet, conn: &mut Conn, program: Program, user: &str) -> Result<(), Error> {
    let check = format!("rights of {}", program.name());
    let mut missing = Vec::new();
    for (right, statement) in needs(program) {
        match conn.query_drop(statement).await {
            Ok(()) => {}
            Err(Error::Server(error)) if DENIED.contains(&error.code) => missing.push(right),
            // The table or the server is at fault, which has a line of its own.
            Err(Error::Server(ServerError { message, .. })) => {
                sheet.not_checked(&check, &message);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    let (name, host) = user.rsplit_once('@').unwrap_or((user, "%"));
    if missing.is_empty() && program == Program::Couponctl {
        changes_of_schema(sheet, conn, &check, &format!("'{name}'@'{host}'")).await?;
    } else if missing.is_empty() {
        sheet.ok(&check, &format!("{user} may do all that it does"));
    } else {
        let grants: Vec<String> = missing.iter().map(|right| format!("GRANT {right} TO '{name}'@'{host}'")).collect();
        let found = format!("{user} lacks {}", missing.join(", "));
        sheet.wrong(&check, &found, &format!("{}; see docs/RIGHTS.md", grants.join("; ")));
    }
    Ok(())
}

/// What `migrate` and `reset` need. It cannot be tried without a change, and may come by a role, which is not looked into.
async fn changes_of_schema(sheet: &mut Sheet, conn: &mut Conn, check: &str, grantee: &str) -> Result<(), Error> {
    let had: Vec<String> = conn
        .exec(
            "SELECT privilege_type FROM information_schema.user_privileges WHERE grantee = ? \
             UNION SELECT privilege_type FROM information_schema.schema_privileges \
             WHERE grantee = ? AND DATABASE() LIKE table_schema",
            (grantee, grantee),
        )
        .await?;
    let missing: Vec<&str> =
        ["CREATE", "ALTER", "DROP", "INDEX"].into_iter().filter(|right| !had.iter().any(|had| had == right)).collect();
    if missing.is_empty() {
        sheet.ok(check, &format!("{grantee} may do all that it does"));
    } else {
        let found = format!("{grantee} is not granted {}, unless by a role", missing.join(", "));
        sheet.warning(check, &found, "`migrate` and `reset` need it: see docs/RIGHTS.md");
    }
    Ok(())
}

/// Whether reads go to the server that writes go to. A replica may not have the last coupons yet, or still have them free.
async fn one_server(sheet: &mut Sheet, conn: &mut Conn) -> Result<(), Error> {
    let identity = if conn.server_version() < (10, 0, 0) { "@@server_uuid" } else { "@@server_id" };
    let who = format!("SELECT CONCAT_WS(' ', CONCAT(@@hostname, ':', @@port), {identity})");
    conn.query_drop("START TRANSACTION").await?;
    let writes: Option<String> = conn.query_first(format!("{who} FOR UPDATE")).await?;
    conn.query_drop("ROLLBACK").await?;
    let mut reads: Vec<String> = Vec::new();
    // A proxy may have several replicas to choose from.
    for _ in 0..5 {
        reads.extend(conn.query_first::<String, _>(&who).await?);
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
            "let the proxy send all of our statements to the primary: from a replica that is behind, \"sold out\" is no proof, \
             and a winner is not found",
        ),
    }
}

/// Nothing of ours needs them now; clusters refuse them, and tools of an operator may.
async fn named_locks(sheet: &mut Sheet, conn: &mut Conn) {
    match conn.query_first::<Option<u8>, _>("SELECT GET_LOCK('coupon.doctor', 0)").await {
        Ok(_) => {
            // It goes with the connection at the latest.
            let _ = conn.query_drop("DO RELEASE_LOCK('coupon.doctor')").await;
            sheet.ok("named locks", "GET_LOCK is allowed");
        }
        Err(error) => {
            sheet.warning("named locks", &error.to_string(), "nothing to do for the services, which need none");
        }
    }
}

async fn snapshots(sheet: &mut Sheet, conn: &mut Conn) {
    match oldest_snapshot(conn).await {
        Ok((seconds, history)) => {
            let found = format!("the oldest transaction is open for {seconds} s; {history} changes wait to be purged");
            if seconds <= SNAPSHOT_MAX_SECONDS && history <= HISTORY_MAX {
                sheet.ok("open snapshots", &found);
            } else {
                let remedy = "end the transaction that is forgotten, or let the backup end, before the sale: see \
                              information_schema.innodb_trx";
                sheet.warning("open snapshots", &found, remedy);
            }
        }
        Err(error) => sheet.warning("open snapshots", &error.to_string(), "ask as a user with the right PROCESS"),
    }
}

async fn oldest_snapshot(conn: &mut Conn) -> Result<(u64, u64), Error> {
    // The table tells times as the system has them.
    conn.query_drop("SET SESSION time_zone = 'SYSTEM'").await?;
    let seconds: Option<Option<i64>> = conn
        .query_first("SELECT MAX(TIMESTAMPDIFF(SECOND, trx_started, NOW())) FROM information_schema.innodb_trx")
        .await?;
    let history: Option<i64> = conn
        .query_first("SELECT `COUNT` FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len'")
        .await?;
    let unsigned = |number: Option<i64>| number.unwrap_or(0).max(0).unsigned_abs();
    Ok((unsigned(seconds.flatten()), unsigned(history)))
}

#[cfg(test)]
mod tests {
    use super::super::sheet::{Finding, Verdict};
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| (String::from(*name), String::from(*value))).collect()
    }

    /// A server that is as it should be, but for these variables.
    fn finds(differs: &[(&str, &str)]) -> Vec<Finding> {
        let sound = [
            ("version", "9.7.4"),
            ("autocommit", "ON"),
            ("innodb_flush_log_at_trx_commit", "1"),
            ("sync_binlog", "1"),
            ("log_bin", "ON"),
            ("innodb_doublewrite", "ON"),
            ("binlog_format", "ROW"),
            ("sql_mode", "STRICT_TRANS_TABLES"),
            ("max_allowed_packet", "67108864"),
        ];
        let global = variables(&[&sound, differs].concat());
        let mut sheet = Sheet::of("MySQL");
        settings(&mut sheet, &global, &global, &global);
        sheet.into_findings().into_iter().filter(|finding| finding.verdict != Verdict::Ok).collect()
    }

    #[test]
    fn a_sound_server_is_left_in_peace() {
        assert!(finds(&[]).is_empty());
        assert!(finds(&[("version", "10.11.6-MariaDB-log"), ("innodb_doublewrite", "1")]).is_empty());
        assert!(finds(&[("log_bin", "OFF"), ("sync_binlog", "0"), ("binlog_format", "STATEMENT")]).is_empty());
    }

    #[test]
    fn each_wrong_setting_is_found_by_itself() {
        for (name, value, check) in [
            ("version", "5.7.44", "version"),
            ("version", "10.5.1-MariaDB", "version"),
            ("read_only", "ON", "takes writes"),
            ("super_read_only", "ON", "takes writes"),
            ("innodb_read_only", "1", "takes writes"),
            ("transaction_read_only", "ON", "takes writes"),
            ("read_only", "NO_LOCK_NO_ADMIN", "takes writes"),
            ("offline_mode", "ON", "takes writes"),
            ("autocommit", "OFF", "autocommit"),
            ("innodb_flush_log_at_trx_commit", "2", "durability"),
            ("sync_binlog", "0", "durability"),
            ("innodb_doublewrite", "OFF", "durability"),
            ("innodb_redo_log_enabled", "OFF", "durability"),
            ("binlog_format", "STATEMENT", "binary log"),
            ("max_allowed_packet", "65536", "packets"),
        ] {
            let found = finds(&[(name, value)]);
            assert!(
                matches!(&found[..], [found] if found.check == check && found.verdict == Verdict::Wrong),
                "{name}: {found:?}"
            );
            assert!(
                found[0].remedy.is_some() && found[0].found.contains(value.trim_end_matches("-MariaDB")),
                "{found:?}"
            );
        }
        for (name, value) in [("sql_mode", ""), ("init_connect", "SET NAMES utf8mb4")] {
            let found = finds(&[(name, value)]);
            assert!(matches!(&found[..], [found] if found.verdict == Verdict::Warning), "{name}: {found:?}");
        }
    }

    #[test]
    fn a_session_that_is_set_otherwise_than_the_server_is_found() {
        let (on, off) = (variables(&[("autocommit", "ON")]), variables(&[("autocommit", "OFF")]));
        let mut sheet = Sheet::of("MySQL");
        commits(&mut sheet, &on, &off);

        assert_eq!(sheet.into_findings()[0].verdict, Verdict::Wrong, "as by init_connect");
    }

    #[test]
    fn reads_from_another_server_are_found() {
        let mut sheet = Sheet::of("MySQL");
        same_server(&mut sheet, "a:3306 1", &[String::from("a:3306 1"), String::from("b:3306 2")]);
        same_server(&mut sheet, "a:3306 1", &[String::from("a:3306 1")]);

        let verdicts: Vec<Verdict> = sheet.into_findings().iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Wrong, Verdict::Ok]);
    }

    #[test]
    fn too_few_connections_are_found() {
        let full = [variables(&[("max_connections", "100")]), variables(&[("threads_connected", "90")])];
        let own = variables(&[("max_connections", "100"), ("max_user_connections", "10")]);
        let mut sheet = Sheet::of("MySQL");
        connections(&mut sheet, &full[0], &full[1], 16);
        connections(&mut sheet, &own, &Variables::default(), 16);
        connections(&mut sheet, &full[0], &Variables::default(), 16);

        let verdicts: Vec<Verdict> = sheet.into_findings().iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Warning, Verdict::Wrong, Verdict::Ok]);
    }
}
