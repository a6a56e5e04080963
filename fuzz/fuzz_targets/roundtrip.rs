//! From a send buffer through the model of a kernel into a receive buffer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imsg_fuzz::roundtrip(data));
