//! The fuzz target of the page about tests of handlers.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imsg_fuzz::handler(data));
