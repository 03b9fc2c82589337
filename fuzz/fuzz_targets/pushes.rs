//! Outcomes that were pushed through Redis: what is read of a message is all that it says.
#![no_main]

use coupon_core::redis::push;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let outcomes = push::decode(data);
    assert!(outcomes.is_empty() || push::encode(&outcomes) == data);
});
