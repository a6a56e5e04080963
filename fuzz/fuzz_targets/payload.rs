//! Readers and writers, against models over a `Vec`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imsg_fuzz::payload(data));
