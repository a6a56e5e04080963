//! A soak: two processes send each other messages and descriptors at random, one of them is killed
//! and started again, and everything is accounted for.
//!
//! ```text
//! cargo run --release -p imsg-tests --bin soak -- --seconds 600 --seed 1 [--dialect classic|modern]
//! ```
//!
//! What a message holds follows from the seed and from the number of the message, so that the
//! receiver knows what to expect. For each descriptor that is sent, the sender keeps a witness,
//! which sees whether the last copy of it is closed. The peer writes down how far it came in memory
//! that the parent can read after the peer was killed.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("soak: this program counts descriptors in the way of Linux, and runs nowhere else");
    std::process::ExitCode::FAILURE
}
