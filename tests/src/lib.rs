//! Shared helpers of the cross-crate tests.

pub mod effort;
pub mod examples;
pub mod payload_model;
pub mod process;
pub mod program;
pub mod reference;
pub mod rng;
pub mod rules;
pub mod tmux;
pub mod vectors;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
