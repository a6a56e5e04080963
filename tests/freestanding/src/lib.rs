//! What a program needs that has nothing below it but the kernel: an entry point, system calls,
//! the memory functions that the compiler calls, and a panic handler that cannot be linked.

#![no_std]

pub mod entry;
pub mod kernel;
mod memory;
