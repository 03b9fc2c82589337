//! The steps of a batch, as metrics and traces name them.

use coupon_core::mysql::sql;
use coupon_core::telemetry::timeline::{Operation, Server};

/// Looks up which accounts of the batch hold a coupon already.
pub static LOOKUP: Operation = Operation { name: "lookup", at: Server::Mysql("SELECT", sql::COUPONS_OF) };

/// Pops ids of free coupons.
pub static RESERVE: Operation = Operation { name: "reserve", at: Server::Redis("LPOP") };

/// Waits for the refill lock, or for another consumer to fill the list.
pub static LOCK: Operation = Operation { name: "refill lock", at: Server::Redis("SET") };

/// Moves ids of free coupons from MySQL to Redis.
pub static REFILL: Operation = Operation { name: "refill", at: Server::Mysql("SELECT", sql::FREE_COUPONS_AFTER) };

/// Writes the accounts into the coupons.
pub static PERSIST: Operation = Operation { name: "persist", at: Server::Mysql("UPDATE", sql::ISSUE) };

/// The same in exact order: all of them or none.
pub static PERSIST_IN_ORDER: Operation = Operation { name: "persist", at: Server::Mysql("UPDATE", sql::ISSUE_ALL) };

/// Writes the outcomes for the requests that wait for them.
pub static RECORD: Operation = Operation { name: "record", at: Server::Redis("SET") };

/// Acknowledges the batch to the broker.
pub static ACK: Operation = Operation { name: "ack", at: Server::Rabbitmq };
