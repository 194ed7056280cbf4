//! The kernel: the only room that reads it, and the contract by which others ask it to look.

pub mod gate;
