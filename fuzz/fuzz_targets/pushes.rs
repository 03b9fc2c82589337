//! Outcomes that are pushed through Redis. A message is either read in full or not at all.
#![no_main]

use coupon_core::redis::push;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let outcomes = push::decode(data);
    assert!(outcomes.is_empty() || push::encode(&outcomes) == data);
});
