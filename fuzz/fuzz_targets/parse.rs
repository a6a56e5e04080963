//! Any bytes, parsed in every way.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imsg_fuzz::parse(data));
