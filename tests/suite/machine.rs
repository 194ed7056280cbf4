//! What this machine lacks for a trial, found out once.

use std::sync::OnceLock;

use whodunit_containers::cri::Containerd;
use whodunit_containers::podman::Podman;
use whodunit_containers::{DaemonConfig, DaemonError, Pod};

/// The exit code of the daemon where the kernel does not let it do its work.
const NO_PERMISSION: i32 = 77;
/// That of a daemon that is demanded what the kernel does not allow.
pub(crate) const IMPOSSIBLE: i32 = 78;

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

/// What is missing for pods of Podman, watched by a daemon of their own.
pub(crate) fn lacks_for_podman() -> Option<&'static str> {
    static LACKS: OnceLock<Option<String>> = OnceLock::new();
    LACKS.get_or_init(|| lacks_for_capture().map(str::to_owned).or_else(Podman::why_not)).as_deref()
}

/// What is missing for pods of containerd. Their images are made by Podman.
pub(crate) fn lacks_for_containerd() -> Option<&'static str> {
    static LACKS: OnceLock<Option<String>> = OnceLock::new();
    LACKS
        .get_or_init(|| lacks_for_podman().map(str::to_owned).or_else(Containerd::why_not))
        .as_deref()
}

/// What is missing for the exact tier of capture. Asked of a real start, too.
pub(crate) fn lacks_for_exact() -> Option<&'static str> {
    static LACKS: OnceLock<Option<String>> = OnceLock::new();
    LACKS
        .get_or_init(|| lacks_for_capture().map(str::to_owned).or_else(|| end_of_exact(IMPOSSIBLE)))
        .as_deref()
}

/// What is missing for maps that count against the limit of locked memory.
pub(crate) fn lacks_for_locked_maps() -> Option<&'static str> {
    if kernel_version() < (5, 11) {
        lacks_for_capture()
    } else {
        Some("since Linux 5.11 maps do not count against the limit of locked memory")
    }
}

/// The running kernel's version, as far as it has two numbers.
pub(crate) fn kernel_version() -> (u32, u32) {
    let name = rustix::system::uname();
    version(&name.release().to_string_lossy()).unwrap_or_default()
}

/// The two numbers that a version begins with.
pub(crate) fn version(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.split_once('.')?;
    let minor = rest.split(|character: char| !character.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// What a daemon says that must be exact, if it ends with this code.
pub(crate) fn end_of_exact(code: i32) -> Option<String> {
    end_of("[capture]\ntier = \"exact\"", code)
}

/// What a daemon says that may not load programs. Asked of a real start: nothing else can tell.
fn refusal() -> Option<String> {
    end_of("", NO_PERMISSION)
}

fn end_of(toml: &str, code: i32) -> Option<String> {
    let pod = Pod::new("probe").ok()?;
    let _neighbour = pod.container("neighbour").start().ok()?;
    let config = DaemonConfig::for_pod(&pod).ok()?.more_toml(toml);
    match config.start() {
        Err(DaemonError::Ended { exit }) if exit.code() == Some(code) => {
            Some(exit.complaints().join(" "))
        }
        _ => None,
    }
}
