//! The layouts of the records that the kernel programs write and the daemon reads.
#![no_std]
