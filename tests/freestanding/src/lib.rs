//! What a program needs that has nothing below it but the kernel, or not even that: an entry point,
//! a way to the outside, the memory functions that the compiler calls, and a panic handler that
//! cannot be linked.

#![no_std]

#[cfg(target_os = "none")]
pub mod board;
pub mod entry;
#[cfg(feature = "all")]
pub mod fields;
#[cfg(target_os = "linux")]
pub mod kernel;
#[cfg(target_os = "linux")]
mod memory;
pub mod service;

#[cfg(target_os = "none")]
pub use board as system;
#[cfg(target_os = "linux")]
pub use kernel as system;
