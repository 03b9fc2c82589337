//! The header `authorization` where tokens are required. Only a token signed with a known key names an account.
#![no_main]

use std::sync::LazyLock;

use actix_web::http::header::HeaderValue;
use actix_web::test::TestRequest;
use clap::Parser;
use coupon_core::api::auth::{Auth, AuthSettings};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    auth: AuthSettings,
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());

static AUTH: LazyLock<Auth> = LazyLock::new(|| {
    let keys = concat!("--auth-keys=", env!("CARGO_MANIFEST_DIR"), "/keys.json");
    let own = ["fuzz", "--auth=jwt", keys, "--auth-issuer=https://issuer.example", "--auth-audience=coupons"];
    let settings = Settings::parse_from(own);
    RUNTIME.block_on(Auth::start(&settings.auth, "127.0.0.1:8080".parse().unwrap())).unwrap()
});

fuzz_target!(|data: &[u8]| {
    let mut request = TestRequest::post();
    for header in data.split(|byte| *byte == b'\n') {
        let Ok(header) = HeaderValue::from_bytes(header) else { return };
        request = request.append_header(("authorization", header));
    }
    let caller = RUNTIME.block_on(AUTH.caller(&request.to_http_request()));
    // Nobody has the private key, so no input can be a valid token.
    assert!(caller.is_err(), "{caller:?}");
});
