//! Counts the instructions that our own code executes for a claim, a figure that no other program on the machine
//! affects. Needs valgrind and gungraun's runner: `scripts/bench --code` provides both.
#![allow(missing_docs, unused_qualifications, clippy::expect_used, clippy::needless_pass_by_value, clippy::panic)]

mod per_claim;

use std::hint::black_box;

use actix_web::HttpRequest;
use coupon_core::{AccountId, Claim, ClaimKey, CouponId};
use gungraun::{library_benchmark, library_benchmark_group, main};
use lapin::BasicProperties;
use per_claim::{BATCH, GROUP, MESSAGE};

#[library_benchmark]
#[bench::one(per_claim::request())]
fn validate(request: HttpRequest) -> AccountId {
    per_claim::validate(black_box(&request))
}

#[library_benchmark]
#[bench::message(per_claim::claims(MESSAGE))]
fn encode(claims: Vec<Claim>) -> Vec<u8> {
    per_claim::encode(black_box(&claims))
}

#[library_benchmark]
#[bench::message(per_claim::message(MESSAGE))]
fn decode(message: (BasicProperties, Vec<u8>)) -> Vec<Claim> {
    per_claim::decode(black_box(&message))
}

#[library_benchmark]
#[bench::batch(per_claim::claims(BATCH))]
fn assemble(claims: Vec<Claim>) -> Vec<ClaimKey> {
    per_claim::assemble(black_box(&claims))
}

#[library_benchmark]
#[bench::batch(per_claim::rows(BATCH))]
fn issue(rows: Vec<(ClaimKey, CouponId)>) -> String {
    per_claim::issue(black_box(&rows))
}

#[library_benchmark]
#[bench::group(per_claim::rows(GROUP))]
fn issue_skip_locked(rows: Vec<(ClaimKey, CouponId)>) -> String {
    per_claim::issue_skip_locked(black_box(&rows))
}

library_benchmark_group!(
    name = per_claim_code;
    benchmarks = validate, encode, decode, assemble, issue, issue_skip_locked
);
main!(library_benchmark_groups = per_claim_code);
