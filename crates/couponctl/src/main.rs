//! The operator's command; see the library.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    coupon_core::service::shutdown::unless_stopped(couponctl::main()).await
}
