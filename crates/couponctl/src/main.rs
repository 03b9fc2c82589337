//! The operator's command; see the library.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    couponctl::main().await
}
