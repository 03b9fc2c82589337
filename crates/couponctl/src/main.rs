//! The operator's command; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    coupon_core::service::shutdown::unless_stopped(couponctl::main())
}
