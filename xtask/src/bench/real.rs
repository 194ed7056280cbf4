//! Real work for `cargo xtask bench`: programs that people run, with the load that they get.
//!
//! Takes Debian's packages as `setup` fetched them, unpacks them into a root, and runs servers out of it in
//! the traced cgroup, with their clients outside of it. Gives the nanoseconds of one request, of one file.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;
use whodunit_containers::Cgroup;
use whodunit_containers::condition::wait_until;

use super::files::PEERS;
use super::measure::{Bench, PATIENCE, Truth, in_cgroup, progress};
use super::table::Row;
use super::{BenchError, io_error};
use crate::setup::packages_of;

/// How long each client puts a server under load.
const LOAD_SECONDS: &str = "5";
const REDIS_REQUESTS: &str = "200000";
/// How many crates are built.
const CRATES: u32 = 8;
/// At most so many times as slow as untraced.
const TARGET: f64 = 1.03;
/// A folder with many small files that every Debian has.
const SEARCHED: &str = "/usr/share/doc";

/// The real work that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RealWork {
    /// `cargo build` of a project of some crates, from nothing.
    CargoBuild,
    /// `find` with `grep` over the documentation of this machine.
    FindAndGrep,
    /// nginx, under wrk.
    Nginx,
    /// redis, under its own benchmark.
    Redis,
}

impl RealWork {
    const ALL: [RealWork; 4] =
        [RealWork::CargoBuild, RealWork::FindAndGrep, RealWork::Nginx, RealWork::Redis];

    fn name(self) -> &'static str {
        match self {
            RealWork::CargoBuild => "cargo build",
            RealWork::FindAndGrep => "find with grep",
            RealWork::Nginx => "nginx under wrk",
            RealWork::Redis => "redis-benchmark",
        }
    }
}

impl Bench {
    /// Programs that people run.
    pub(super) fn real_work(&self) -> Result<Vec<Row>, BenchError> {
        progress("real work: unpacking");
        let programs = RealPrograms::unpack()?;
        let mut rows = Vec::new();
        for work in RealWork::ALL {
            let run = || programs.measure(work, &self.traced);
            let measured = self.measure_with(work.name(), &PEERS, &run, Truth::NothingLost)?;
            let mut row = measured.times_untraced(work.name(), TARGET);
            row.remark += " a turn; 0 lost";
            rows.push(row);
        }
        Ok(rows)
    }
}

/// The root that servers run in.
struct RealPrograms {
    root: TempDir,
}

impl RealPrograms {
    /// Unpacks what `setup` fetched.
    fn unpack() -> Result<RealPrograms, BenchError> {
        let root = tempfile::Builder::new()
            .prefix("whodunit-bench-root-")
            .tempdir()
            .map_err(io_error("make a folder"))?;
        let programs = RealPrograms { root };
        let top = programs.root.path();
        for folder in
            ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "run", "tmp", "dev", "srv/www"]
        {
            make_folder(&top.join(folder))?;
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{link}"), top.join(link)).map_err(io_error("make a link"))?;
        }
        let script = "for package in \"$1\"/*.deb; do dpkg-deb --fsys-tarfile \"$package\" | \
            tar --extract --keep-directory-symlink -C \"$2\" || exit 1; done";
        for name in ["nginx", "redis", "wrk"] {
            let mut unpack = Command::new("sh");
            unpack.args(["-c", script, "sh"]).arg(packages_of(name)).arg(top);
            succeed(&mut unpack)?;
        }
        write(&top.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n")?;
        write(&top.join("etc/group"), "root:x:0:\nwww-data:x:33:\n")?;
        write(&top.join("dev/null"), "")?;
        let page = "<p>a page</p>".repeat(50);
        for number in 0..100 {
            write(&top.join(format!("srv/www/{number}.html")), &page)?;
        }
        Ok(programs)
    }

    /// Does the work once, in the cgroup, and gives the nanoseconds of one turn.
    fn measure(&self, work: RealWork, cgroup: &Cgroup) -> Result<f64, BenchError> {
        match work {
            RealWork::CargoBuild => self.cargo_build(cgroup),
            RealWork::FindAndGrep => find_and_grep(cgroup),
            RealWork::Nginx => self.nginx(cgroup),
            RealWork::Redis => self.redis(cgroup),
        }
    }

    /// A project without dependencies, in a folder that has never been built in. One turn is one crate.
    fn cargo_build(&self, cgroup: &Cgroup) -> Result<f64, BenchError> {
        let project = tempfile::Builder::new()
            .prefix("whodunit-bench-cargo-")
            .tempdir()
            .map_err(io_error("make a folder"))?;
        let path = project.path();
        write(
            &path.join("Cargo.toml"),
            "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n",
        )?;
        for number in 0..CRATES {
            let folder = path.join(format!("crates/part{number}"));
            let manifest = format!(
                "[package]\nname = \"part{number}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n"
            );
            write(&folder.join("Cargo.toml"), &manifest)?;
            let functions = (0..100).map(|function| {
                format!(
                    "pub fn f{function}(text: &str) -> Vec<String> {{ text.lines().map(|line| \
                     format!(\"{function} {{line:?}}\")).collect() }}\n"
                )
            });
            write(&folder.join("src/lib.rs"), &functions.collect::<String>())?;
        }
        let start = Instant::now();
        let mut cargo = in_cgroup(cgroup);
        cargo.args(["cargo", "build", "--quiet", "--offline"]).current_dir(path);
        // As a project of its own, not as part of what runs this.
        cargo.env("CARGO_TARGET_DIR", path.join("target"));
        succeed(&mut cargo)?;
        Ok(start.elapsed().as_nanos() as f64 / f64::from(CRATES))
    }

    fn nginx(&self, cgroup: &Cgroup) -> Result<f64, BenchError> {
        let port = free_port()?;
        let configuration = format!(
            "user www-data; worker_processes 1; pid /run/bench.pid; error_log /dev/null; events {{}} \
             http {{ access_log off; server {{ listen 127.0.0.1:{port}; root /srv/www; }} }}"
        );
        write(&self.root.path().join("etc/nginx/bench.conf"), &configuration)?;
        let arguments = ["/usr/sbin/nginx", "-c", "/etc/nginx/bench.conf", "-g", "daemon off;"];
        let _server = self.serve(cgroup, &arguments, port)?;
        let url = format!("http://127.0.0.1:{port}/7.html");
        let said = self.client(&["/usr/bin/wrk", "-t1", "-c16", "-d", LOAD_SECONDS, &url])?;
        let rate = said.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
        per_turn(rate, "wrk", &said)
    }

    fn redis(&self, cgroup: &Cgroup) -> Result<f64, BenchError> {
        let port = free_port()?.to_string();
        let arguments =
            ["/usr/bin/redis-server", "--port", &port, "--bind", "127.0.0.1", "--save", ""];
        let _server = self.serve(cgroup, &arguments, port.parse().unwrap_or_default())?;
        let said = self.client(&[
            "/usr/bin/redis-benchmark",
            "-p",
            &port,
            "-n",
            REDIS_REQUESTS,
            "-t",
            "get",
            "--csv",
        ])?;
        // `"GET","81234.77",...` after the titles.
        let line = said.lines().find_map(|line| line.strip_prefix("\"GET\",\""));
        per_turn(line.and_then(|rest| rest.split('"').next()), "redis-benchmark", &said)
    }

    fn serve(&self, cgroup: &Cgroup, arguments: &[&str], port: u16) -> Result<Server, BenchError> {
        let mut command = in_cgroup(cgroup);
        command.arg("chroot").arg(self.root.path()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server(command.spawn().map_err(io_error(format!("start {}", arguments[0])))?);
        let up = wait_until(PATIENCE, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        if up {
            Ok(server)
        } else {
            Err(BenchError::Wrong(format!("{} does not answer", arguments[0])))
        }
    }

    fn client(&self, arguments: &[&str]) -> Result<String, BenchError> {
        succeed(Command::new("chroot").arg(self.root.path()).args(arguments))
    }
}

/// Nanoseconds of one turn, from turns in a second.
fn per_turn(rate: Option<&str>, program: &str, said: &str) -> Result<f64, BenchError> {
    let rate = rate.and_then(|text| text.trim().parse::<f64>().ok()).filter(|rate| *rate > 0.0);
    rate.map(|rate| 1e9 / rate)
        .ok_or_else(|| BenchError::Wrong(format!("{program} gives no rate: {said}")))
}

fn find_and_grep(cgroup: &Cgroup) -> Result<f64, BenchError> {
    let script = format!(
        "find {SEARCHED} -type f -exec grep -l 'no file has this line' {{}} + | wc -l; \
         find {SEARCHED} -type f | wc -l"
    );
    let start = Instant::now();
    let said = succeed(in_cgroup(cgroup).args(["sh", "-c", &script]))?;
    let elapsed = start.elapsed();
    let files = said.lines().last().and_then(|line| line.trim().parse::<f64>().ok());
    let files = files.filter(|files| *files > 0.0);
    let files = files
        .ok_or_else(|| BenchError::Wrong(format!("there are no files in {SEARCHED}: {said}")))?;
    Ok(elapsed.as_nanos() as f64 / files)
}

fn succeed(command: &mut Command) -> Result<String, BenchError> {
    let output =
        command.stdin(Stdio::null()).output().map_err(io_error(format!("run {command:?}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(BenchError::Wrong(format!("{command:?} failed ({}): {said}", output.status)))
}

fn free_port() -> Result<u16, BenchError> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr());
    Ok(bound.map_err(io_error("find a free port"))?.port())
}

fn make_folder(path: &Path) -> Result<(), BenchError> {
    fs::create_dir_all(path).map_err(io_error(format!("make {}", path.display())))
}

fn write(path: &PathBuf, text: &str) -> Result<(), BenchError> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    fs::write(path, text).map_err(io_error(format!("write {}", path.display())))
}

/// A server that runs until it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // In order, so that the workers of nginx go too; by force where that does not help.
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if !wait_until(PATIENCE, || matches!(self.0.try_wait(), Ok(Some(_)))) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_becomes_the_time_of_one_turn() {
        assert_eq!(per_turn(Some(" 1000.0"), "x", "").unwrap(), 1e6);
        for wrong in [None, Some("0"), Some("fast")] {
            assert!(per_turn(wrong, "x", "said").unwrap_err().to_string().contains("said"));
        }
    }
}
