//! Writing to the daemon's log. Rate limited by the daemon, which counts what it leaves out.

pub use crate::bindings::whodunit::plugin::log::Level;

use crate::imports;

/// Writes one message. The macros format it: [`error!`](crate::error), [`warn!`](crate::warn),
/// [`info!`](crate::info), [`debug!`](crate::debug), [`trace!`](crate::trace).
pub fn write(level: Level, message: &str) {
    imports::log(level, message);
}

/// Writes an error to the daemon's log.
#[macro_export]
macro_rules! error {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Error, &::std::format!($($message)*))
    };
}

/// Writes a warning to the daemon's log.
#[macro_export]
macro_rules! warn {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Warn, &::std::format!($($message)*))
    };
}

/// Writes to the daemon's log what an operator wants to know.
#[macro_export]
macro_rules! info {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Info, &::std::format!($($message)*))
    };
}

/// Writes to the daemon's log what helps to find a fault.
#[macro_export]
macro_rules! debug {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Debug, &::std::format!($($message)*))
    };
}

/// Writes to the daemon's log every step.
#[macro_export]
macro_rules! trace {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Trace, &::std::format!($($message)*))
    };
}
