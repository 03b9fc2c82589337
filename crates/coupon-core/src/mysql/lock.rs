//! Named locks, for commands of which only one may run at a time.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::error::Result;

/// Returns whether this connection gets the lock on doing `what` with `whose` within `wait`, in whole seconds. The lock
/// is held until the connection ends.
///
/// # Errors
/// Any error from MySQL.
pub async fn lock(conn: &mut Conn, what: &str, whose: &str, wait: Duration) -> Result<bool> {
    // A name may have at most 64 characters, whatever is locked.
    let lock = "SELECT GET_LOCK(CONCAT('coupon.', ?, '.', LEFT(SHA2(?, 256), 40)), ?)";
    let locked: Option<Option<u8>> = conn.exec_first(lock, (what, whose, wait.as_secs())).await?;
    Ok(locked.flatten() == Some(1))
}
