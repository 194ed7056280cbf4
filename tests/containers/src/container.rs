//! A container that runc runs: an OCI bundle with a root file system of nothing but busybox and the
//! files that the caller names, so that what its programs can open is known exactly.
//!
//! Busybox is linked statically: executing it opens nothing. Its shell runs `cat` and the like by
//! executing itself, so the only program of such a container is `/bin/busybox`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cgroup::{self, CgroupError};
use crate::condition::{PATIENCE, wait_for, wait_until};
use crate::find_program;
use crate::pod::Pod;

/// What can go wrong with a container.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// A program that containers are made with.
    #[error("there is no `{program}` on this machine; install the Debian package {package}")]
    Missing {
        /// Its name.
        program: &'static str,
        /// Where it comes from.
        package: &'static str,
    },
    /// A file or folder of the bundle.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// runc refused.
    #[error("`runc {command}` failed for container {id}: {message}")]
    Runc {
        /// The subcommand.
        command: &'static str,
        /// The container.
        id: String,
        /// What runc wrote, on one line.
        message: String,
    },
    /// It ended too early.
    #[error("container {id} ended before there was {what}")]
    Gone {
        /// Its id.
        id: String,
        /// What it should have said.
        what: String,
    },
    /// Something did not happen in time.
    #[error("container {id}: waited {} s in vain for {what}", after.as_secs())]
    TimedOut {
        /// The container.
        id: String,
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// Its cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

impl ContainerError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ContainerError {
        let path = path.to_owned();
        move |source| ContainerError::Io { action, path, source }
    }
}

/// The commands of busybox that are also there by name, for programs that are started without a
/// shell.
const APPLETS: [&str; 8] = ["sh", "cat", "sleep", "true", "head", "touch", "id", "find"];

/// The capabilities that containers get by default where nobody asks for more.
const DEFAULT_CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// A bind mount into a container.
#[derive(Clone, Debug)]
struct Bind {
    source: PathBuf,
    destination: PathBuf,
    writable: bool,
}

/// A container that is being described.
#[derive(Debug)]
#[must_use = "a described container does nothing until it is started"]
pub struct ContainerBuilder {
    pod: Pod,
    id: String,
    program: Vec<String>,
    environment: Vec<(String, String)>,
    content: Vec<Content>,
    root: Option<PathBuf>,
    binds: Vec<Bind>,
    user: u32,
    private_cgroup_namespace: bool,
    pid_namespace: Option<PathBuf>,
    memory_bytes: Option<u64>,
    cpu_percent: Option<u32>,
    terminals: bool,
    capabilities: Vec<String>,
}

#[derive(Debug)]
enum Content {
    File { path: PathBuf, bytes: Vec<u8>, mode: u32 },
    Copy { from: PathBuf, path: PathBuf },
    Symlink { path: PathBuf, target: PathBuf },
    Folder { path: PathBuf },
}

impl ContainerBuilder {
    pub(crate) fn new(pod: Pod, id: String) -> ContainerBuilder {
        ContainerBuilder {
            pod,
            id,
            program: vec!["/bin/sleep".into(), "3600".into()],
            environment: vec![("PATH".into(), "/bin".into())],
            content: Vec::new(),
            root: None,
            binds: Vec::new(),
            user: 0,
            private_cgroup_namespace: false,
            pid_namespace: None,
            memory_bytes: None,
            cpu_percent: None,
            terminals: false,
            capabilities: DEFAULT_CAPABILITIES.map(str::to_owned).into(),
        }
    }

    /// The program that it runs, with its arguments. Without, it sleeps.
    pub fn program<S: AsRef<str>>(mut self, arguments: &[S]) -> Self {
        self.program = arguments.iter().map(|argument| argument.as_ref().to_owned()).collect();
        self
    }

    /// Runs a script of busybox' shell.
    pub fn shell(self, script: &str) -> Self {
        self.program(&["/bin/sh", "-c", script])
    }

    /// Takes a folder that is there as its root, and puts nothing into it: no busybox either.
    pub fn root(mut self, folder: impl AsRef<Path>) -> Self {
        self.root = Some(folder.as_ref().to_owned());
        self
    }

    /// Adds a file with these permissions. Its folders are made.
    pub fn file(mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>, mode: u32) -> Self {
        let (path, bytes) = (path.as_ref().to_owned(), bytes.as_ref().to_owned());
        self.content.push(Content::File { path, bytes, mode });
        self
    }

    /// Adds a copy of a file of this machine, with its permissions.
    pub fn copy(mut self, from: impl AsRef<Path>, path: impl AsRef<Path>) -> Self {
        let (from, path) = (from.as_ref().to_owned(), path.as_ref().to_owned());
        self.content.push(Content::Copy { from, path });
        self
    }

    /// Adds a symbolic link.
    pub fn symlink(mut self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Self {
        let (path, target) = (path.as_ref().to_owned(), target.as_ref().to_owned());
        self.content.push(Content::Symlink { path, target });
        self
    }

    /// Adds an empty folder that everybody may write.
    pub fn folder(mut self, path: impl AsRef<Path>) -> Self {
        self.content.push(Content::Folder { path: path.as_ref().to_owned() });
        self
    }

    /// Mounts a file or folder of this machine into it, read-only.
    pub fn bind(self, source: impl AsRef<Path>, destination: impl AsRef<Path>) -> Self {
        self.bind_with(source.as_ref(), destination.as_ref(), false)
    }

    /// Mounts a file or folder of this machine into it.
    pub fn bind_writable(self, source: impl AsRef<Path>, destination: impl AsRef<Path>) -> Self {
        self.bind_with(source.as_ref(), destination.as_ref(), true)
    }

    fn bind_with(mut self, source: &Path, destination: &Path, writable: bool) -> Self {
        let (source, destination) = (source.to_owned(), destination.to_owned());
        self.binds.push(Bind { source, destination, writable });
        self
    }

    /// Sets an environment variable.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it as this user and group.
    pub fn user(mut self, id: u32) -> Self {
        self.user = id;
        self
    }

    /// Gives it a cgroup namespace of its own: inside, `/proc/self/cgroup` says `0::/`.
    pub fn private_cgroup_namespace(mut self) -> Self {
        self.private_cgroup_namespace = true;
        self
    }

    /// Lets it share the pid namespace of another container, as the containers of a pod can.
    pub fn pid_namespace_of(mut self, other: &Container) -> Self {
        self.pid_namespace = Some(format!("/proc/{}/ns/pid", other.pid()).into());
        self
    }

    /// Limits its memory to so many bytes.
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = Some(bytes);
        self
    }

    /// Limits its CPU to so many percent of one processor.
    pub fn cpu_percent(mut self, percent: u32) -> Self {
        self.cpu_percent = Some(percent);
        self
    }

    /// Gives it a `/dev/pts` of its own, so that its programs can make terminals.
    pub fn terminals(mut self) -> Self {
        self.terminals = true;
        self
    }

    /// The capabilities that it has, by their names, such as `CAP_BPF`.
    pub fn capabilities<S: AsRef<str>>(mut self, names: &[S]) -> Self {
        self.capabilities = names.iter().map(|name| name.as_ref().to_owned()).collect();
        self
    }

    /// Starts it. Returns as soon as runc has started its program.
    pub fn start(self) -> Result<Container, ContainerError> {
        let bundle = self.make_bundle()?;
        let pid_file = bundle.join("pid");
        let log = |name: &str| {
            let path = bundle.join(name);
            File::create(&path).map_err(ContainerError::io("make", &path))
        };
        let mut runc = runc(&self.pod)?;
        runc.args(["run", "--keep", "--bundle"])
            .arg(&bundle)
            .arg("--pid-file")
            .arg(&pid_file)
            .arg(&self.id)
            .stdin(Stdio::piped())
            .stdout(log("stdout")?)
            .stderr(log("stderr")?)
            // An interrupt from the keyboard is for whoever runs the containers, who then ends them.
            .process_group(0);
        let mut monitor = runc.spawn().map_err(ContainerError::io("run", Path::new("runc")))?;
        let stdin = monitor.stdin.take();
        let mut container = Container {
            cgroup_folder: self.pod.cgroup_folder().join(&self.id),
            root: self.root.unwrap_or_else(|| bundle.join("rootfs")),
            pod: self.pod,
            id: self.id,
            bundle,
            monitor,
            status: None,
            stdin,
            pid: 0,
            cgroup_id: 0,
            deleted: false,
        };
        container.pid = container.await_pid(&pid_file)?;
        container.cgroup_id = cgroup::cgroup_id(&container.cgroup_folder)?;
        Ok(container)
    }

    /// Runs it to its end. runc removes it as soon as its program has ended, as a runtime does with
    /// a container that nobody looks at any more.
    pub fn run(self) -> Result<Finished, ContainerError> {
        let bundle = self.make_bundle()?;
        let output = runc(&self.pod)?
            .args(["run", "--bundle"])
            .arg(&bundle)
            .arg(&self.id)
            .stdin(Stdio::null())
            .output()
            .map_err(ContainerError::io("run", Path::new("runc")))?;
        cgroup::remove_tree(&self.pod.cgroup_folder().join(&self.id));
        Ok(Finished {
            cgroup_path: format!("{}/{}", self.pod.cgroup_path(), self.id),
            id: self.id,
            output,
        })
    }

    fn make_bundle(&self) -> Result<PathBuf, ContainerError> {
        let bundle = self.pod.folder().join(&self.id);
        if self.root.is_some() {
            fs::create_dir_all(&bundle).map_err(ContainerError::io("make", &bundle))?;
            self.write_configuration(&bundle)?;
            return Ok(bundle);
        }
        let root = bundle.join("rootfs");
        for folder in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).map_err(ContainerError::io("make", &folder))?;
        }
        allow(&root, 0o755)?;
        allow(&root.join("tmp"), 0o1777)?;
        let missing = ContainerError::Missing { program: "busybox", package: "busybox-static" };
        let busybox = find_program("busybox").ok_or(missing)?;
        copy(&busybox, &root.join("bin/busybox"))?;
        for applet in APPLETS {
            let link = root.join("bin").join(applet);
            symlink("busybox", &link).map_err(ContainerError::io("make", &link))?;
        }
        for content in &self.content {
            content.put(&root)?;
        }
        self.write_configuration(&bundle)?;
        Ok(bundle)
    }

    fn write_configuration(&self, bundle: &Path) -> Result<(), ContainerError> {
        let config = bundle.join("config.json");
        let text = serde_json::to_vec_pretty(&self.configuration())
            .expect("a JSON value can always be written");
        fs::write(&config, text).map_err(ContainerError::io("write", &config))
    }

    /// The OCI configuration.
    fn configuration(&self) -> Value {
        let environment: Vec<String> =
            self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut mounts = vec![
            json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
            json!({
                "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            }),
            json!({
                "destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"],
            }),
        ];
        if self.terminals {
            mounts.push(json!({
                "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            }));
        }
        mounts.extend(self.binds.iter().map(|bind| {
            json!({
                "destination": bind.destination, "type": "bind", "source": bind.source,
                "options": ["rbind", if bind.writable { "rw" } else { "ro" }],
            })
        }));
        let mut namespaces = vec!["ipc", "uts", "mount"];
        if self.private_cgroup_namespace {
            namespaces.push("cgroup");
        }
        let mut namespaces: Vec<Value> =
            namespaces.into_iter().map(|kind| json!({ "type": kind })).collect();
        namespaces.push(match &self.pid_namespace {
            Some(path) => json!({ "type": "pid", "path": path }),
            None => json!({ "type": "pid" }),
        });
        let mut resources = json!({});
        if let Some(bytes) = self.memory_bytes {
            resources["memory"] = json!({ "limit": bytes });
        }
        if let Some(percent) = self.cpu_percent {
            const PERIOD_US: u32 = 100_000;
            let quota = i64::from(percent) * i64::from(PERIOD_US / 100);
            resources["cpu"] = json!({ "quota": quota, "period": PERIOD_US });
        }
        let root = self.root.as_deref().unwrap_or(Path::new("rootfs"));
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": { "uid": self.user, "gid": self.user },
                "args": self.program,
                "env": environment,
                "cwd": "/",
                "capabilities": {
                    "bounding": self.capabilities,
                    "effective": self.capabilities,
                    "permitted": self.capabilities,
                },
                "noNewPrivileges": true,
            },
            "root": { "path": root, "readonly": false },
            "hostname": self.id,
            "mounts": mounts,
            "linux": {
                "cgroupsPath": format!("{}/{}", self.pod.cgroup_path(), self.id),
                "namespaces": namespaces,
                "resources": resources,
            },
        })
    }
}

impl Content {
    fn put(&self, root: &Path) -> Result<(), ContainerError> {
        let (Content::File { path, .. }
        | Content::Copy { path, .. }
        | Content::Symlink { path, .. }
        | Content::Folder { path }) = self;
        let path = inside(root, path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(ContainerError::io("make", parent))?;
        }
        match self {
            Content::File { bytes, mode, .. } => {
                fs::write(&path, bytes).map_err(ContainerError::io("write", &path))?;
                allow(&path, *mode)
            }
            Content::Copy { from, .. } => copy(from, &path),
            Content::Symlink { target, .. } => {
                symlink(target, &path).map_err(ContainerError::io("make", &path))
            }
            Content::Folder { .. } => {
                fs::create_dir_all(&path).map_err(ContainerError::io("make", &path))?;
                allow(&path, 0o1777)
            }
        }
    }
}

/// A container that was started. Dropped, it is killed and removed.
#[derive(Debug)]
pub struct Container {
    // The pod's cgroup stays until its last container is dropped.
    pod: Pod,
    id: String,
    bundle: PathBuf,
    cgroup_folder: PathBuf,
    cgroup_id: u64,
    /// The `runc run` in the foreground, whose status is that of the container's program.
    monitor: Child,
    status: Option<ExitStatus>,
    stdin: Option<ChildStdin>,
    root: PathBuf,
    pid: u32,
    deleted: bool,
}

impl Container {
    /// Its id, as the runtime knows it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Path of its cgroup below the root of the version 2 hierarchy, with a leading slash.
    pub fn cgroup_path(&self) -> String {
        format!("{}/{}", self.pod.cgroup_path(), self.id)
    }

    /// Folder of its cgroup in the version 2 hierarchy.
    pub fn cgroup_folder(&self) -> &Path {
        &self.cgroup_folder
    }

    /// Id of its cgroup.
    pub fn cgroup_id(&self) -> u64 {
        self.cgroup_id
    }

    /// Its first process, as this machine numbers it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The folder that is `/` for it, in which a test may change things.
    pub fn root(&self) -> PathBuf {
        self.root.clone()
    }

    /// What its programs wrote to standard output so far.
    pub fn stdout(&self) -> String {
        read_lossy(&self.bundle.join("stdout"))
    }

    /// What its programs, or runc, wrote to standard error so far.
    pub fn stderr(&self) -> String {
        read_lossy(&self.bundle.join("stderr"))
    }

    /// Writes a line to the standard input of its program. A shell's `read` takes it and opens no
    /// file for that.
    pub fn tell(&mut self, line: &str) -> Result<(), ContainerError> {
        let path = self.bundle.join("stdin");
        let Some(stdin) = &mut self.stdin else {
            let closed = io::Error::from(io::ErrorKind::BrokenPipe);
            return Err(ContainerError::io("write", &path)(closed));
        };
        writeln!(stdin, "{line}").map_err(ContainerError::io("write", &path))
    }

    /// Waits until its program has written a line that ends so to standard output. What came before
    /// on that line may be a file without a newline at its end.
    pub fn hear(&self, line: &str) -> Result<(), ContainerError> {
        let has_said = || self.stdout().lines().any(|said| said.ends_with(line));
        let is_gone = || !Path::new("/proc").join(self.pid.to_string()).exists();
        wait_until(PATIENCE, || is_gone() || has_said());
        // What it said last is there when it is gone.
        if has_said() {
            return Ok(());
        }
        let what = format!(
            "a line with {line:?} at its end; it said {:?} and {:?}",
            self.stdout(),
            self.stderr()
        );
        match is_gone() {
            true => Err(ContainerError::Gone { id: self.id.clone(), what }),
            false => Err(self.timed_out(what)),
        }
    }

    /// Runs a program in it to the end, with `runc exec`.
    pub fn exec<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Output, ContainerError> {
        runc(&self.pod)?
            .arg("exec")
            .arg(&self.id)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(ContainerError::io("run", Path::new("runc")))
    }

    /// Runs a script of busybox' shell in it to the end, and expects it to succeed.
    pub fn exec_shell(&self, script: &str) -> Result<String, ContainerError> {
        let output = self.exec(&["/bin/sh", "-c", script])?;
        if !output.status.success() {
            return Err(self.refused("exec", &output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes a cgroup inside its cgroup and moves its first process there, as an init system in the
    /// container does. `name` may have several components. Returns the id of the new cgroup.
    pub fn nest(&self, name: &str) -> Result<u64, ContainerError> {
        let folder = cgroup::make_nested(&self.cgroup_folder, name)?;
        cgroup::move_process(self.pid, &folder)?;
        Ok(cgroup::cgroup_id(&folder)?)
    }

    /// Waits until its program has ended. The container stays, as a runtime keeps it, until it is
    /// deleted.
    pub fn wait(&mut self) -> Result<ExitStatus, ContainerError> {
        self.wait_at_most(PATIENCE)
    }

    /// Waits until its program has ended, at most this long.
    pub fn wait_at_most(&mut self, at_most: Duration) -> Result<ExitStatus, ContainerError> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let monitor = &mut self.monitor;
        let ended = wait_for(at_most, || monitor.try_wait().transpose());
        match ended {
            Some(Ok(status)) => {
                self.status = Some(status);
                Ok(status)
            }
            Some(Err(source)) => Err(ContainerError::io("wait for", &self.bundle)(source)),
            None => Err(self.timed_out("the end of its program".into())),
        }
    }

    /// Whether its program has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.status.is_none() && matches!(self.monitor.try_wait(), Ok(None))
    }

    /// Sends a signal, such as `TERM`, to its first process.
    pub fn kill(&self, signal: &str) -> Result<(), ContainerError> {
        let output = self.runc("kill", &[&self.id, signal])?;
        if output.status.success() { Ok(()) } else { Err(self.refused("kill", &output.stderr)) }
    }

    /// Kills what still runs in it and removes it, cgroups included.
    pub fn delete(mut self) -> Result<(), ContainerError> {
        self.remove()
    }

    fn remove(&mut self) -> Result<(), ContainerError> {
        self.deleted = true;
        self.stdin = None;
        let output = self.runc("delete", &["--force", &self.id])?;
        // A container that was never quite started has no state: its cgroup may be there all the same.
        cgroup::remove_tree(&self.cgroup_folder);
        self.wait()?;
        if output.status.success() { Ok(()) } else { Err(self.refused("delete", &output.stderr)) }
    }

    fn await_pid(&mut self, pid_file: &Path) -> Result<u32, ContainerError> {
        let found = wait_for(PATIENCE, || {
            // runc puts the file there by renaming it: it is whole as soon as it is there.
            let pid = fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse().ok());
            match pid {
                Some(pid) => Some(Some(pid)),
                None if self.is_running() => None,
                None => Some(None),
            }
        });
        match found {
            Some(Some(pid)) => Ok(pid),
            Some(None) => Err(self.refused("run", self.stderr().as_bytes())),
            None => Err(self.timed_out("runc to start it".into())),
        }
    }

    fn runc(&self, command: &str, arguments: &[&str]) -> Result<Output, ContainerError> {
        runc(&self.pod)?
            .arg(command)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(ContainerError::io("run", Path::new("runc")))
    }

    fn refused(&self, command: &'static str, stderr: &[u8]) -> ContainerError {
        let message = String::from_utf8_lossy(stderr).trim().replace('\n', "; ");
        ContainerError::Runc { command, id: self.id.clone(), message }
    }

    fn timed_out(&self, what: String) -> ContainerError {
        ContainerError::TimedOut { id: self.id.clone(), what, after: PATIENCE }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.deleted {
            // There is nobody to tell, and the pod's cgroup removes what is left.
            let _ = self.remove();
        }
        if self.is_running() {
            let _ = self.monitor.kill();
            let _ = self.monitor.wait();
        }
    }
}

/// A container that ran to its end and is gone.
#[derive(Debug)]
pub struct Finished {
    /// Its id.
    pub id: String,
    /// Path of the cgroup that it had.
    pub cgroup_path: String,
    /// What it wrote and how it ended.
    pub output: Output,
}

/// `runc` with a folder for its state that no other pod shares.
fn runc(pod: &Pod) -> Result<Command, ContainerError> {
    let missing = ContainerError::Missing { program: "runc", package: "runc" };
    let mut command = Command::new(find_program("runc").ok_or(missing)?);
    command.arg("--root").arg(pod.folder().join("runc"));
    Ok(command)
}

/// A path of the container as a path of this machine.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn allow(path: &Path, mode: u32) -> Result<(), ContainerError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(ContainerError::io("set the permissions of", path))
}

fn copy(from: &Path, to: &Path) -> Result<(), ContainerError> {
    fs::copy(from, to).map_err(ContainerError::io("copy", from))?;
    allow(to, 0o755)
}

fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
