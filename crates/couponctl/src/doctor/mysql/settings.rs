//! The server's settings: versions, durability, limits. Pure, so that tests can try each wrong value without a server
//! that has it.

use crate::doctor::sheet::{Sheet, Variables};

/// Every statement of ours is shorter than this.
const PACKET_MIN: u64 = 1024 * 1024;

/// Checks the settings of the server, both globally and in a session of this user.
pub fn check(sheet: &mut Sheet, global: &Variables, session: &Variables, status: &Variables) {
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

/// Checks that a single statement is committed.
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

/// Checks that a commit survives a power cut.
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

pub fn check_connections(sheet: &mut Sheet, global: &Variables, status: &Variables, each: u64) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::sheet::{Finding, Verdict};

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| (String::from(*name), String::from(*value))).collect()
    }

    /// The findings about a server that is as it should be except for these variables.
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
        check(&mut sheet, &global, &global, &global);
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
    fn too_few_connections_are_found() {
        let full = [variables(&[("max_connections", "100")]), variables(&[("threads_connected", "90")])];
        let own = variables(&[("max_connections", "100"), ("max_user_connections", "10")]);
        let mut sheet = Sheet::of("MySQL");
        check_connections(&mut sheet, &full[0], &full[1], 16);
        check_connections(&mut sheet, &own, &Variables::default(), 16);
        check_connections(&mut sheet, &full[0], &Variables::default(), 16);

        let verdicts: Vec<Verdict> = sheet.into_findings().iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Warning, Verdict::Wrong, Verdict::Ok]);
    }
}
