//! What this machine lacks for a trial, found out once.

use std::sync::OnceLock;

use whodunit_containers::{DaemonConfig, DaemonError, Pod};

/// The exit code of the daemon where the kernel does not let it do its work.
const NO_PERMISSION: i32 = 77;

/// What is missing for containers.
pub(crate) fn lacks_for_containers() -> Option<&'static str> {
    static LACKS: OnceLock<Option<String>> = OnceLock::new();
    LACKS.get_or_init(whodunit_containers::why_not).as_deref()
}

/// What is missing for the daemon to capture anything. Only the kernel's refusal counts: a daemon
/// that is broken or not built is no reason to leave a trial out.
pub(crate) fn lacks_for_capture() -> Option<&'static str> {
    static LACKS: OnceLock<Option<String>> = OnceLock::new();
    LACKS.get_or_init(|| lacks_for_containers().map(str::to_owned).or_else(refusal)).as_deref()
}

/// What a daemon says that may not load programs. Asked of a real start: nothing else can tell.
fn refusal() -> Option<String> {
    let pod = Pod::new("probe").ok()?;
    let _neighbour = pod.container("neighbour").start().ok()?;
    let config = DaemonConfig::for_pod(&pod).ok()?;
    match config.start() {
        Err(DaemonError::Ended { exit }) if exit.code() == Some(NO_PERMISSION) => {
            Some(exit.complaints().join(" "))
        }
        _ => None,
    }
}
