//! Checks what the user of a program may do. Each right is tried with a statement that touches no row, because a right
//! may come from a role, which a list of grants would not show.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, ServerError};

use crate::doctor::Program;
use crate::doctor::sheet::Sheet;

/// Errors that mean that a user lacks a right: to a database, to a table, to a column, or a server-wide privilege.
const DENIED: [u16; 4] = [1044, 1142, 1143, 1227];

/// The rights that a program needs in MySQL: each as GRANT names it, with a statement that needs only that right and
/// touches no row.
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
        needs.push(("UPDATE (account_id) ON coupon", "UPDATE coupon SET account_id = NULL WHERE FALSE"));
    }
    if program == Program::Couponctl {
        needs.extend([
            ("INSERT ON campaign", "INSERT INTO campaign (id, name) SELECT 0, '' FROM DUAL WHERE FALSE"),
            ("UPDATE ON campaign", "UPDATE campaign SET coupons = 0 WHERE FALSE"),
            ("DELETE ON campaign", "DELETE FROM campaign WHERE FALSE"),
            ("INSERT ON coupon", "INSERT INTO coupon (campaign_id, id) SELECT 0, '' FROM DUAL WHERE FALSE"),
            ("DELETE ON coupon", "DELETE FROM coupon WHERE FALSE"),
        ]);
    }
    needs
}

pub async fn check(sheet: &mut Sheet, conn: &mut Conn, program: Program, user: &str) -> Result<(), Error> {
    let check = format!("rights of {}", program.name());
    let mut missing = Vec::new();
    for (right, statement) in needs(program) {
        match conn.query_drop(statement).await {
            Ok(()) => {}
            Err(Error::Server(error)) if DENIED.contains(&error.code) => missing.push(right),
            // The table or the server is at fault, which is reported on a line of its own.
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
        sheet.ok(&check, &format!("{user} has all the rights that it needs"));
    } else {
        let grants: Vec<String> = missing.iter().map(|right| format!("GRANT {right} TO '{name}'@'{host}'")).collect();
        let found = format!("{user} lacks {}", missing.join(", "));
        sheet.wrong(&check, &found, &format!("{}; see docs/RIGHTS.md", grants.join("; ")));
    }
    Ok(())
}

/// Checks the rights that `migrate` and `reset` need. They cannot be tried without changing something, and may come
/// from a role, which is not checked.
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
        sheet.ok(check, &format!("{grantee} has all the rights that it needs"));
    } else {
        let found = format!("{grantee} is not granted {}, unless by a role", missing.join(", "));
        sheet.warning(check, &found, "`migrate` and `reset` need it: see docs/RIGHTS.md");
    }
    Ok(())
}
