//! The requests of the example `privsep`, valid or broken in one place.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imsg_fuzz::privsep(data));
