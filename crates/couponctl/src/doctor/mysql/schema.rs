//! The schema and its tables: the version, and the keys, engine and triggers that issuing a coupon depends on.

use coupon_core::mysql::schema::{self, Flaw, Standing};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

use crate::doctor::sheet::Sheet;

pub async fn check_version(sheet: &mut Sheet, conn: &mut Conn) -> Result<(), Error> {
    match Standing::of(conn).await {
        Ok(standing) => match standing.flaw() {
            None => sheet.ok("schema", &format!("version {}, this build's", schema::wanted())),
            Some(Flaw { what, remedy }) => sheet.wrong("schema", &what, remedy),
        },
        Err(Error::Server(error)) => sheet.wrong("schema", &error.message, "see the rights below"),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Checks keys, engine and triggers, as far as the tables exist.
pub async fn check_tables(sheet: &mut Sheet, conn: &mut Conn) -> Result<(), Error> {
    match conn.query::<Row, _>("SHOW INDEX FROM coupon").await {
        Ok(rows) => {
            let keys: Vec<KeyColumn> = rows.iter().map(KeyColumn::of).collect();
            key(sheet, &keys, "PRIMARY", &["campaign_id", "id"], "ADD PRIMARY KEY (campaign_id, id)");
            let remedy = "ADD UNIQUE KEY coupon_campaign_account (campaign_id, account_id)";
            key(sheet, &keys, "coupon_campaign_account", &["campaign_id", "account_id"], remedy);
        }
        Err(Error::Server(error)) => {
            let remedy = "run `couponctl migrate`, or see the rights below; a table that is gone from a schema of the right \
                          version must come from a backup";
            sheet.wrong("keys", &error.message, remedy);
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
    if engines.is_empty() {
        sheet.warning("engine", "no tables", "run `couponctl migrate`");
    } else if others.is_empty() {
        sheet.ok("engine", &format!("InnoDB, for each of {} tables", engines.len()));
    } else {
        let remedy = "ALTER TABLE … ENGINE = InnoDB: other engines lack transactions or row locks";
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
        let remedy = "drop them, unless you know what each does: one that fails blocks the issue of every coupon";
        sheet.warning("triggers", &triggers.join(", "), remedy);
    }
    Ok(())
}

/// A column of one of the table's keys.
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
            // MySQL reports whether a key is visible, MariaDB whether it is ignored.
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
    sheet.wrong(&check, &flaw, &format!("ALTER TABLE coupon {remedy}: every issue depends on this key"));
}
