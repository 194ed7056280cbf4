//! The kernel's own log, as a witness of the kills that it says it did.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

use libtest_mimic::Failed;
use rustix::fs::OFlags;
use whodunit_containers::condition::{PATIENCE, wait_for};

/// A record of `/dev/kmsg` is at most so long (`CONSOLE_EXT_LOG_MAX`, 8192 bytes).
const RECORD_MAX: usize = 8192;

/// How the kernel says that it killed this process.
fn killed(pid: u64) -> String {
    format!("Killed process {pid} (")
}

/// What the log says from a moment on. None inside where this machine does not let it be read.
pub(super) struct KernelLog {
    file: Option<File>,
    said: Vec<String>,
}

impl KernelLog {
    /// Listens from now on.
    pub(super) fn listen() -> KernelLog {
        let flags = OFlags::NONBLOCK.bits() as i32;
        let open = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg");
        let file = open.and_then(|mut file| file.seek(SeekFrom::End(0)).map(|_| file)).ok();
        if file.is_none() {
            println!("the kernel log cannot be read here: it is no witness");
        }
        KernelLog { file, said: Vec::new() }
    }

    /// Takes what was said meanwhile.
    fn read(&mut self) {
        let Some(file) = &mut self.file else { return };
        let mut record = [0; RECORD_MAX];
        loop {
            match file.read(&mut record) {
                Ok(length) => self.said.push(String::from_utf8_lossy(&record[..length]).into()),
                // Records were overwritten before they were read: the next ones are there.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(_) => return,
            }
        }
    }

    /// Whether the kernel says by now that it killed this process for want of memory.
    pub(super) fn says_killed(&mut self, pid: u64) -> bool {
        self.read();
        self.said.iter().any(|line| line.contains(&killed(pid)))
    }

    /// The name of the process in whose allocation memory ran out last, as the kernel says. None where it cannot be read.
    pub(super) fn oom_trigger(&mut self) -> Option<String> {
        self.read();
        let told =
            self.said.iter().rev().find_map(|line| line.split_once(" invoked oom-killer:"))?;
        // Before it stand the record's numbers, and a semicolon.
        told.0.split_once(';').map(|(_, name)| name.to_owned())
    }

    /// Expects that the kernel says that it killed this process (as the machine numbers it) for want of the memory of this
    /// cgroup, or of the machine's with none.
    pub(super) fn expect_oom_kill(&mut self, pid: u64, cgroup: Option<&str>) -> Result<(), Failed> {
        if self.file.is_none() {
            return Ok(());
        }
        let killed = killed(pid);
        let says = |line: &&String| line.contains(&killed);
        let line = wait_for(PATIENCE, || {
            self.read();
            self.said.iter().find(says).cloned()
        });
        let line =
            line.ok_or_else(|| format!("the kernel log has no {killed:?}: {:#?}", self.said))?;
        let is_of_cgroup = line.contains("Memory cgroup out of memory: ");
        if is_of_cgroup != cgroup.is_some() {
            return Err(format!("the kernel log says {line:?}, of the memory of {cgroup:?}").into());
        }
        // The summary has a limit of its own: ten in five seconds.
        let of_it = format!(",pid={pid},");
        let summary = self
            .said
            .iter()
            .find(|line| line.contains("oom-kill:constraint=CONSTRAINT_") && line.contains(&of_it));
        let expected = match cgroup {
            Some(cgroup) => format!(",oom_memcg={cgroup},"),
            None => ",global_oom,".to_owned(),
        };
        match summary {
            Some(summary) if !summary.contains(&expected) => {
                Err(format!("the kernel log says {summary:?}, not {expected:?}").into())
            }
            Some(_) | None => Ok(()),
        }
    }
}
