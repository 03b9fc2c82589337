//! The steps of a claim in MySQL, as metrics and traces name them.

use coupon_core::mysql::sql;
use coupon_core::telemetry::timeline::{Operation, Server};

/// Waits for a connection of the pool.
pub static CONNECTION: Operation = Operation { name: "wait for connection", at: Server::None };

/// Finds the row to look behind, away from where others sell.
pub static PASS: Operation = Operation { name: "SELECT coupon away", at: Server::Mysql("SELECT", sql::FREE_COUPON_AT) };

/// Writes accounts into rows that nobody else holds.
pub static ISSUE: Operation = Operation { name: "UPDATE coupon", at: Server::Mysql("UPDATE", sql::ISSUE_SKIP_LOCKED) };

/// Opens the transaction.
pub static BEGIN: Operation = Operation { name: "START TRANSACTION", at: Server::MysqlTransaction };

/// Finds free rows that nobody else holds, and locks them.
pub static LOCK: Operation = Operation { name: "SELECT coupon", at: Server::Mysql("SELECT", sql::LOCK_FREE_COUPONS) };

/// The same from an id on.
pub static LOCK_BEHIND: Operation =
    Operation { name: "SELECT coupon", at: Server::Mysql("SELECT", sql::LOCK_FREE_COUPONS_BEHIND) };

/// Locks the first free row, waiting for whoever holds it.
pub static LOCK_FIRST: Operation =
    Operation { name: "SELECT coupon", at: Server::Mysql("SELECT", sql::LOCK_FIRST_COUPON) };

/// Writes one account into one row.
pub static UPDATE_ONE: Operation = Operation { name: "UPDATE coupon", at: Server::Mysql("UPDATE", sql::ISSUE_ONE) };

/// Writes one account into one row that is not locked, all in one.
pub static CLAIM_ONE: Operation = Operation { name: "UPDATE coupon", at: Server::Mysql("UPDATE", sql::CLAIM_ONE) };

/// Writes one account into the first free row, waiting for whoever holds it.
pub static CLAIM_FIRST: Operation = Operation { name: "UPDATE coupon", at: Server::Mysql("UPDATE", sql::CLAIM_FIRST) };

/// Makes it last.
pub static COMMIT: Operation = Operation { name: "COMMIT", at: Server::MysqlTransaction };

/// Gives locks back.
pub static ROLLBACK: Operation = Operation { name: "ROLLBACK", at: Server::MysqlTransaction };

/// Is a row free, locked or not?
pub static FREE: Operation =
    Operation { name: "SELECT campaign stock", at: Server::Mysql("SELECT", sql::CAMPAIGNS_WITH_STOCK) };

/// Which of the accounts hold a coupon?
pub static HELD: Operation = Operation { name: "SELECT coupon held", at: Server::Mysql("SELECT", sql::COUPONS_OF) };
