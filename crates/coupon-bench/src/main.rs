//! Puts load on the APIs; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    coupon_core::service::shutdown::unless_stopped(coupon_bench::main())
}
