//! The settings of skiplock-api.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};
use coupon_core::api::auth::AuthSettings;
use coupon_core::api::rate_limit::RateSettings;
use coupon_core::api::serve::HttpSettings;
use coupon_core::settings::{MysqlSettings, ProcessSettings, listen_address};

/// Groups of claims in MySQL at the same time.
const GROUPS: u16 = 2;

/// Most claims that share one statement.
const GROUP_MAX: u16 = 500;

/// Takes claims for coupons over HTTP and issues them in MySQL with SKIP LOCKED, with no broker or cache in between.
///
/// Every setting is a flag or an environment variable. The defaults connect to the server that
/// `scripts/services up mysql` or `docker compose up -d mysql` starts.
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  skiplock-api --strategy select-update --mysql-connections 32\n  skiplock-api --listen 0.0.0.0:8081 --auth trusted-header --auth-header x-account-id\n  skiplock-api --auth jwt --auth-jwks-url https://issuer.example/jwks.json --auth-issuer https://issuer.example --auth-audience coupons"
)]
pub struct Settings {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, env = "LISTEN", value_name = "ADDRESS", value_parser = listen_address, default_value = "127.0.0.1:8081")]
    pub listen: SocketAddr,

    /// Address and port of a second listener for /livez, /readyz and /metrics, which claims cannot fill; port 0 takes a
    /// free one.
    #[arg(long, env = "ADMIN_LISTEN", value_name = "ADDRESS", value_parser = listen_address, default_value = "127.0.0.1:8091")]
    pub admin_listen: SocketAddr,

    /// How a claim finds its coupon.
    #[arg(long, env = "STRATEGY", value_name = "NAME", default_value = "coalesced")]
    pub strategy: StrategyName,

    /// Groups of claims in MySQL at the same time, for `coalesced`.
    #[arg(long, env = "CLAIM_GROUPS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64), default_value_t = GROUPS)]
    pub groups: u16,

    /// Most claims that share one statement, for `coalesced`. A group takes the waiting claims and never waits to fill
    /// up.
    #[arg(long, env = "GROUP_MAX", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=2000), default_value_t = GROUP_MAX)]
    pub group_max: u16,

    /// HTTP.
    #[command(flatten)]
    pub http: HttpSettings,

    /// Who may claim and read.
    #[command(flatten)]
    pub auth: AuthSettings,

    /// Limits against bots.
    #[command(flatten)]
    pub rate: RateSettings,

    /// MySQL.
    #[command(flatten)]
    pub mysql: MysqlSettings,

    /// Logs and stopping.
    #[command(flatten)]
    pub process: ProcessSettings,
}

impl Settings {
    /// Whether a setting was changed that the strategy does not read.
    pub fn has_unread_groups(&self) -> bool {
        self.strategy != StrategyName::Coalesced && (self.groups, self.group_max) != (GROUPS, GROUP_MAX)
    }
}

/// How a claim finds its coupon.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum StrategyName {
    /// A transaction for each claim: SELECT … LIMIT 1 FOR UPDATE SKIP LOCKED, UPDATE, COMMIT.
    SelectUpdate,
    /// A statement for each claim: UPDATE … JOIN (SELECT … LIMIT 1 FOR UPDATE SKIP LOCKED).
    SingleStatement,
    /// Like select-update, but starting at a random id.
    Scattered,
    /// Claims waiting at the same moment share one statement.
    Coalesced,
    /// Like select-update, but without SKIP LOCKED: for comparison only.
    ForUpdate,
    /// A statement for each claim, without SKIP LOCKED: for comparison only.
    BlindUpdate,
}
