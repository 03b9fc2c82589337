//! Puts load on the APIs; see the library.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    coupon_core::service::shutdown::unless_stopped(coupon_bench::main()).await
}
