//! The daemon's clocks: the only time in the sandbox.

use crate::imports;

/// Nanoseconds since the Unix epoch.
pub fn now() -> u64 {
    imports::now()
}

/// Nanoseconds since the machine's boot, suspended time included. Never goes backward.
pub fn monotonic() -> u64 {
    imports::monotonic()
}
