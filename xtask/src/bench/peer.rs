//! The peers of `cargo xtask bench`: other tracers, started and waited for.

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use whodunit_containers::condition::wait_until;

use super::measure::{FILES, PATIENCE, resident_bytes};
use super::{BenchError, io_error};

/// The tracers that we are measured beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerKind {
    /// `opensnoop` of libbpf-tools: every opening goes to user space.
    Opensnoop,
    /// A script of bpftrace that counts openings in a map in the kernel, and nothing else.
    BpftraceMap,
    /// `execsnoop` of libbpf-tools.
    Execsnoop,
    /// `exitsnoop` of libbpf-tools.
    Exitsnoop,
    /// `sigsnoop` of libbpf-tools.
    Sigsnoop,
    /// The two that together see something of what we see of a death.
    ExitsnoopAndSigsnoop,
}

impl PeerKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            PeerKind::Opensnoop => "opensnoop",
            PeerKind::BpftraceMap => "bpftrace map",
            PeerKind::Execsnoop => "execsnoop",
            PeerKind::Exitsnoop => "exitsnoop",
            PeerKind::Sigsnoop => "sigsnoop",
            PeerKind::ExitsnoopAndSigsnoop => "exitsnoop and sigsnoop",
        }
    }

    fn commands(self) -> Vec<Command> {
        match self {
            PeerKind::BpftraceMap => {
                let mut command = Command::new("bpftrace");
                command.env("BPFTRACE_MAP_KEYS_MAX", (2 * FILES).to_string()).args([
                    "-e",
                    "tracepoint:syscalls:sys_enter_openat { @[str(args->filename)] = count(); }",
                ]);
                vec![command]
            }
            PeerKind::ExitsnoopAndSigsnoop => {
                [PeerKind::Exitsnoop, PeerKind::Sigsnoop].map(|one| Command::new(one.name())).into()
            }
            PeerKind::Opensnoop
            | PeerKind::Execsnoop
            | PeerKind::Exitsnoop
            | PeerKind::Sigsnoop => vec![Command::new(self.name())],
        }
    }
}

/// A peer that traces.
pub(super) struct Peer(Vec<Program>);

impl Peer {
    pub(super) fn start(kind: PeerKind) -> Result<Peer, BenchError> {
        kind.commands().iter_mut().map(Program::start).collect::<Result<_, _>>().map(Peer)
    }

    pub(super) fn resident_bytes(&self) -> Result<f64, BenchError> {
        self.0.iter().map(|program| resident_bytes(program.child.id())).sum()
    }
}

/// A program that traces.
struct Program {
    child: Child,
}

impl Program {
    fn start(command: &mut Command) -> Result<Program, BenchError> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io_error(format!("start {name}")))?;
        let mut program = Program { child };
        // What it says is read and thrown away, as the cheapest reader would.
        let pipes: [Option<Box<dyn io::Read + Send>>; 2] = [
            program.child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn io::Read + Send>),
            program.child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn io::Read + Send>),
        ];
        for mut pipe in pipes.into_iter().flatten() {
            thread::spawn(move || io::copy(&mut pipe, &mut io::sink()));
        }
        // Into a pipe none says in time that it traces. It does once it holds its perf events or links, and
        // once there come no more of them.
        let mut before = 0;
        let attached = wait_until(PATIENCE, || {
            let now = program.hooks();
            thread::sleep(Duration::from_millis(300));
            let settled = now > 0 && now == before;
            before = now;
            settled
        });
        match program.child.try_wait() {
            Ok(Some(status)) => {
                Err(BenchError::Wrong(format!("{name} ended ({status}) and does not trace")))
            }
            Ok(None) | Err(_) if attached => Ok(program),
            Ok(None) | Err(_) => Err(BenchError::Wrong(format!("{name} did not start to trace"))),
        }
    }

    /// How many perf events and BPF links it holds, by which programs hang on tracepoints.
    fn hooks(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        let links = fs::read_dir(folder).into_iter().flatten().flatten();
        links
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .map(|target| target.to_string_lossy().into_owned())
            .filter(|target| target.contains("perf_event") || target.contains("bpf_link"))
            .count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Killed, or bpftrace would print its whole map.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
