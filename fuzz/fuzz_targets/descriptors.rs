//! Any peer and any reads, against the model of the pairing rules.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imsg_fuzz::descriptors(data));
