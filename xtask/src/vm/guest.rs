//! One guest: started, heard, and ended in any case.
//!
//! The processor is emulated: a hypervisor of the machine may be missing, and the emulation does for
//! programs that mostly wait. The guest's second serial line carries what its trials write; the kernel's
//! messages go to a file.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::tally::Tally;

/// The emulator.
pub(crate) const EMULATOR: &str = "qemu-system-x86_64";

/// A plain 64-bit processor. QEMU 7.2 returns from an emulated `cmpxchg16b` with flags that are no flags,
/// which soon ends a kernel that uses it (6.12 allocates memory with it): the guest must not find it.
const PROCESSOR: &str = "qemu64,-cx16,+rdrand,+ssse3,+sse4.1,+sse4.2,+popcnt";

/// The emulation, one virtual processor after the other. QEMU 7.2 emulating several at once can translate code
/// that another processor is just rewriting (it locks the page only afterwards; changed in 8.1), and kernels rewrite
/// their own code whenever a program is attached. That is the likely reason why guests stood still, or died of a
/// breakpoint that was not there any more. Trials mostly wait, and take no longer.
const EMULATION: &str = "tcg,thread=single";

/// On the kernel's command line. A panic ends the guest at once; what protects against hostile
/// neighbours costs time and protects nobody here. Debian's kernels have x32 where this asks for it, up to
/// some version.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 mitigations=off nokaslr random.trust_cpu=on \
     lsm=lockdown,yama,bpf syscall.x32=y";

/// Lines of the kernel's messages that are shown when a guest dies.
const LAST_MESSAGES: usize = 40;

/// What ended a guest before its trials were over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestError {
    /// The emulator could not be started.
    #[error("{EMULATOR} cannot be started: {0}")]
    Start(io::Error),
    /// It said nothing for too long.
    #[error("the guest was killed, because nothing came from it for {} s", .0.as_secs())]
    Silent(Duration),
    /// It took too long.
    #[error("the guest was killed, because it was not done after {} s", .0.as_secs())]
    Late(Duration),
    /// It turned itself off, or died.
    #[error("the guest ended before its trials were over: its kernel's messages are above")]
    Died,
}

/// How long a guest may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// In all.
    pub(crate) in_all: Duration,
    /// From one line to the next.
    pub(crate) silent: Duration,
}

/// What a guest said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// What its trials counted.
    pub(crate) tally: Tally,
    /// How long it took to its first trial, in seconds.
    pub(crate) up_after: Option<u64>,
    over: bool,
    /// Failures that were counted when the present run of the trials began.
    failed_before: u64,
}

impl Said {
    /// Takes a line of the guest. `after` is the time since its start.
    fn hear(&mut self, line: &str, after: Duration) {
        if let Some(counted) = Tally::of_line(line) {
            self.tally += counted;
        }
        let Some(word) = line.strip_prefix("guest: ") else { return };
        if word.starts_with("up ") {
            self.up_after = Some(after.as_secs());
        } else if let Some(status) = word.strip_prefix("status ") {
            // A runner that died counted nothing.
            if status != "0" && self.tally.failed == self.failed_before {
                self.tally += Tally::of_check(false);
            }
            self.failed_before = self.tally.failed;
        } else if word == "over" {
            self.over = true;
        }
    }
}

/// Runs a guest to its end and shows what its trials write.
///
/// # Errors
///
/// If it did not come to the end of its trials. What they counted until then is lost: a guest that hangs
/// is a failure by itself.
pub(crate) fn run(
    kernel: &Path,
    image: &Path,
    messages: &Path,
    patience: Patience,
) -> Result<Said, GuestError> {
    let mut guest = Running(start(kernel, image, messages).map_err(GuestError::Start)?);
    let start = Instant::now();
    let (sender, lines) = mpsc::channel();
    let output = guest.0.stdout.take().map(BufReader::new);
    std::thread::spawn(move || {
        for line in output.into_iter().flat_map(|output| output.split(b'\n')).map_while(Result::ok)
        {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut said = Said::default();
    loop {
        let left = patience.in_all.saturating_sub(start.elapsed());
        match lines.recv_timeout(patience.silent.min(left)) {
            Ok(line) => {
                println!("{line}");
                said.hear(&line, start.elapsed());
            }
            Err(RecvTimeoutError::Timeout) => {
                show_last(messages);
                return Err(match start.elapsed() < patience.in_all {
                    true => GuestError::Silent(patience.silent),
                    false => GuestError::Late(patience.in_all),
                });
            }
            Err(RecvTimeoutError::Disconnected) if said.over => return Ok(said),
            Err(RecvTimeoutError::Disconnected) => {
                show_last(messages);
                return Err(GuestError::Died);
            }
        }
    }
}

/// A guest that is killed when nobody waits for it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(kernel: &Path, image: &Path, messages: &Path) -> io::Result<Child> {
    let file = |path: &Path| {
        let mut text = std::ffi::OsString::from("file:");
        text.push(path);
        text
    };
    Command::new(EMULATOR)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args([
            "-machine", "q35", "-accel", EMULATION, "-cpu", PROCESSOR, "-smp", "2", "-m", "2048",
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        .args(["-append", COMMAND_LINE])
        .arg("-serial")
        .arg(file(messages))
        .args(["-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
}

fn show_last(messages: &Path) {
    let text = fs::read(messages).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(LAST_MESSAGES)..] {
        println!("    {}", line.trim_end());
    }
}

/// Where the messages of a guest's kernel go.
pub(crate) fn messages_of(folder: &Path, version: &str) -> PathBuf {
    folder.join(format!("{version}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], expected: Said) {
        let mut said = Said::default();
        for line in lines {
            said.hear(line, Duration::from_secs(7));
        }
        assert_eq!(said, expected, "{lines:?}");
    }

    #[test]
    fn what_each_run_of_the_trials_counts_is_summed() {
        let tally = Tally { passed: 5, failed: 1, skipped: 1 };
        check(
            &[
                "guest: up for 4.20 s, kernel 6.1.0",
                "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out",
                "guest: status 0",
                "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 9 filtered out",
                "guest: status 101",
                "guest: over",
            ],
            Said { tally, up_after: Some(7), over: true, failed_before: 1 },
        );
    }

    #[test]
    fn a_runner_that_dies_in_a_guest_is_a_failure() {
        let tally = Tally { passed: 0, failed: 1, skipped: 0 };
        check(&["guest: status 139"], Said { tally, failed_before: 1, ..Said::default() });
    }

    #[test]
    fn a_guest_that_goes_off_too_early_or_hangs_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = folder.path().join("nothing");
        fs::write(&nothing, "no kernel").unwrap();
        if Command::new(EMULATOR).arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: there is no {EMULATOR}");
            return;
        }
        let messages = folder.path().join("messages");
        let second = Duration::from_secs(1);
        let died = run(
            &nothing,
            &nothing,
            &messages,
            Patience { in_all: 60 * second, silent: 60 * second },
        );
        assert!(matches!(died, Err(GuestError::Died)), "{died:?}");
    }
}
