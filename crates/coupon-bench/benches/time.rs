//! Measures how long our own code takes for a claim: `cargo bench -p coupon-bench --bench time`.
#![allow(missing_docs, clippy::expect_used, clippy::panic)]

mod per_claim;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use per_claim::{BATCH, GROUP, MESSAGE};

/// Measures a function that handles this many claims. Criterion also reports claims per second.
fn bench<I, O>(criterion: &mut Criterion, name: &str, claims: u64, input: &I, work: impl Fn(&I) -> O) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(claims));
    group.bench_function(BenchmarkId::from_parameter(claims), |bencher| bencher.iter(|| work(black_box(input))));
    group.finish();
}

fn all(criterion: &mut Criterion) {
    bench(criterion, "validate", 1, &per_claim::request(), per_claim::validate);
    bench(criterion, "encode", MESSAGE, &per_claim::claims(MESSAGE), |claims| per_claim::encode(claims));
    bench(criterion, "decode", MESSAGE, &per_claim::message(MESSAGE), per_claim::decode);
    bench(criterion, "assemble", BATCH, &per_claim::claims(BATCH), |claims| per_claim::assemble(claims));
    bench(criterion, "issue", BATCH, &per_claim::rows(BATCH), |rows| per_claim::issue(rows));
    bench(criterion, "issue_skip_locked", GROUP, &per_claim::rows(GROUP), |rows| per_claim::issue_skip_locked(rows));
}

criterion_group!(benches, all);
criterion_main!(benches);
