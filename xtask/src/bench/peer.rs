//! The peers of `cargo xtask bench`: other tracers, started and waited for.

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use whodunit_containers::condition::wait_until;

use super::{BenchError, COLD_FILES, PATIENCE, Tracer, io_error, resident_bytes};

/// A peer that traces.
pub(super) struct Peer {
    child: Child,
}

impl Peer {
    pub(super) fn start(tracer: Tracer) -> Result<Peer, BenchError> {
        let mut command = match tracer {
            Tracer::Bpftrace => {
                let mut command = Command::new("bpftrace");
                command.env("BPFTRACE_MAP_KEYS_MAX", (2 * COLD_FILES).to_string()).args([
                    "-e",
                    "tracepoint:syscalls:sys_enter_openat { @[str(args->filename)] = count(); }",
                ]);
                command
            }
            _ => Command::new("opensnoop"),
        };
        let name = tracer.name();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io_error(format!("start {name}")))?;
        // What it says is read and thrown away, as the cheapest reader would.
        let pipes: [Option<Box<dyn io::Read + Send>>; 2] = [
            child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn io::Read + Send>),
            child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn io::Read + Send>),
        ];
        for mut pipe in pipes.into_iter().flatten() {
            thread::spawn(move || io::copy(&mut pipe, &mut io::sink()));
        }
        let mut peer = Peer { child };
        // Into a pipe neither says in time that it traces. It does once it holds its perf events, and
        // once there come no more of them.
        let mut before = 0;
        let attached = wait_until(PATIENCE, || {
            let now = peer.perf_events();
            thread::sleep(Duration::from_millis(300));
            let settled = now > 0 && now == before;
            before = now;
            settled
        });
        match peer.child.try_wait() {
            Ok(Some(status)) => {
                return Err(BenchError::Wrong(format!(
                    "{name} ended ({status}) and does not trace"
                )));
            }
            Ok(None) | Err(_) if attached => {}
            Ok(None) | Err(_) => {
                return Err(BenchError::Wrong(format!("{name} did not start to trace")));
            }
        }
        Ok(peer)
    }

    /// How many perf events it holds, by which programs hang on tracepoints.
    fn perf_events(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        let links = fs::read_dir(folder).into_iter().flatten().flatten();
        links
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter(|target| target.to_string_lossy().contains("perf_event"))
            .count()
    }

    pub(super) fn resident_bytes(&self) -> Result<f64, BenchError> {
        resident_bytes(self.child.id())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Killed, or bpftrace would print its whole map.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
