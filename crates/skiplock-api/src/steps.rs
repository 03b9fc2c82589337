//! The steps of a claim in MySQL, as metrics and traces name them.

use coupon_core::mysql::sql;
use coupon_core::telemetry::timeline::{Operation, Server};

/// Waits for a connection from the pool.
pub static CONNECTION: Operation = Operation { name: "wait for connection", at: Server::None };

/// Finds the row to read on from, away from where other instances issue.
pub static AWAY: Operation = Operation { name: "SELECT coupon away", at: Server::Mysql("SELECT", sql::FREE_COUPON_AT) };

/// Writes accounts into rows that nobody else holds.
pub static ISSUE: Operation = Operation { name: "UPDATE coupon", at: Server::Mysql("UPDATE", sql::ISSUE_SKIP_LOCKED) };

/// Opens the transaction.
pub static BEGIN: Operation = Operation { name: "START TRANSACTION", at: Server::MysqlTransaction };

/// Finds free rows that nobody else holds, and locks them.
pub static LOCK: Operation = Operation { name: "SELECT coupon", at: Server::Mysql("SELECT", sql::LOCK_FREE_COUPONS) };

/// Does the same, starting after an id.
pub static LOCK_AFTER: Operation =
    Operation { name: "SELECT coupon", at: Server::Mysql("SELECT", sql::LOCK_FREE_COUPONS_AFTER) };

/// Locks the first free row, waiting for the transaction that holds it.
pub static LOCK_FIRST: Operation =
    Operation { name: "SELECT coupon", at: Server::Mysql("SELECT", sql::LOCK_FIRST_COUPON) };

/// Writes one account into one row.
pub static UPDATE_ONE: Operation = Operation { name: "UPDATE coupon", at: Server::Mysql("UPDATE", sql::ISSUE_ONE) };

/// Finds a row that is not locked and writes one account into it, in one statement.
pub static CLAIM_ONE: Operation = Operation { name: "UPDATE coupon", at: Server::Mysql("UPDATE", sql::CLAIM_ONE) };

/// Writes one account into the first free row, waiting for the transaction that holds it.
pub static CLAIM_FIRST: Operation = Operation { name: "UPDATE coupon", at: Server::Mysql("UPDATE", sql::CLAIM_FIRST) };

/// Commits.
pub static COMMIT: Operation = Operation { name: "COMMIT", at: Server::MysqlTransaction };

/// Releases the locks.
pub static ROLLBACK: Operation = Operation { name: "ROLLBACK", at: Server::MysqlTransaction };

/// Checks whether any row is free, locked or not.
pub static FREE: Operation =
    Operation { name: "SELECT campaign stock", at: Server::Mysql("SELECT", sql::CAMPAIGNS_WITH_STOCK) };

/// Looks up which of the accounts hold a coupon.
pub static HELD: Operation = Operation { name: "SELECT coupon held", at: Server::Mysql("SELECT", sql::COUPONS_OF) };
