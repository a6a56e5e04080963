//! Any bytes in any pieces, through a receive buffer of any size, against a decoder over a `Vec`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imsg_fuzz::stream(data));
