//! Pods of Podman, with a storage of their own.
//!
//! Owns the storage and everything in it; whoever else uses Podman on this machine sees nothing of it. Containers are run by
//! runc, in cgroups below `/libpod_parent`.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Resource, getrlimit};
use tempfile::TempDir;

use crate::condition::{PATIENCE, wait_until};
use crate::find_program;

/// Programs that Podman needs beside runc, with Debian's packages of them.
const PROGRAMS: [(&str, &str); 3] =
    [("podman", "podman"), ("conmon", "conmon"), ("catatonit", "catatonit")];

/// Why Podman did not do something.
#[derive(Debug, thiserror::Error)]
pub enum PodmanError {
    /// The system refused something.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: String,
        /// Why.
        source: io::Error,
    },
    /// Podman said no.
    #[error("`podman {arguments}` failed: {said}")]
    Failed {
        /// What it was asked.
        arguments: String,
        /// What it wrote to standard error.
        said: String,
    },
}

/// A Podman with a storage of its own. Dropped, its pods are removed.
#[derive(Debug)]
pub struct Podman {
    folder: TempDir,
}

impl Podman {
    /// What is missing on this machine, in one sentence. None where nothing is.
    pub fn why_not() -> Option<String> {
        let missing = PROGRAMS.iter().find(|(program, _)| find_program(program).is_none());
        missing.map(|(program, package)| {
            format!("there is no {program}; install the Debian package {package}")
        })
    }

    /// An empty storage. Containers are under Podman's own seccomp profile, or under none: profiles as old
    /// as that of Debian 12 forbid `bpf` to everybody without `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    ///
    /// If its folder cannot be made.
    pub fn new(has_seccomp: bool) -> Result<Podman, PodmanError> {
        // Short: the paths of Podman's sockets are below it.
        let folder = tempfile::Builder::new().prefix("wp-").tempdir();
        let podman = Podman { folder: folder.map_err(system("make a folder"))? };
        for folder in [podman.storage(), podman.run_root()] {
            fs::create_dir_all(folder).map_err(system("make a folder"))?;
        }
        // Podman asks for more than this process may have where it lacks CAP_SYS_RESOURCE.
        let [files, processes] = [Resource::Nofile, Resource::Nproc]
            .map(|resource| getrlimit(resource).current.unwrap_or(1024).min(1024));
        let profile = if has_seccomp { "" } else { "seccomp_profile = \"unconfined\"\n" };
        let configuration = format!(
            "[containers]\n{profile}\
             default_ulimits = [\"nofile={files}:{files}\", \"nproc={processes}:{processes}\"]\n"
        );
        fs::write(podman.configuration(), configuration).map_err(system("write a file"))?;
        Ok(podman)
    }

    /// What stands for the root of the machine's file system, with Podman's files where they always are.
    pub fn host_root(&self) -> &Path {
        self.folder.path()
    }

    /// Where the bundles of its containers are, and the list of their names.
    pub fn bundles(&self) -> PathBuf {
        self.storage().join("overlay-containers")
    }

    /// The folder of one of its volumes.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.storage().join("volumes").join(name).join("_data")
    }

    fn storage(&self) -> PathBuf {
        self.folder.path().join("var/lib/containers/storage")
    }

    fn run_root(&self) -> PathBuf {
        self.folder.path().join("run/containers/storage")
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("containers.conf")
    }

    /// Makes an image of a folder, with these changes in the words of a Containerfile.
    ///
    /// # Errors
    ///
    /// If the folder cannot be packed, or Podman does not take it.
    pub fn import(&self, root: &Path, changes: &[&str], image: &str) -> Result<(), PodmanError> {
        let packed = self.folder.path().join("image.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(root).arg("-cf").arg(&packed).arg(".");
        let output = tar.output().map_err(system("run tar"))?;
        check(output, "tar")?;
        let changes = changes.iter().flat_map(|change| ["--change", *change]);
        let mut arguments: Vec<&OsStr> = vec!["import".as_ref(), "--quiet".as_ref()];
        arguments.extend(changes.map(OsStr::new));
        arguments.extend([packed.as_os_str(), image.as_ref()]);
        self.run(&arguments, "").map(drop)
    }

    /// Builds an image from a Containerfile, in a folder that holds what it copies.
    ///
    /// # Errors
    ///
    /// If Podman cannot.
    pub fn build(&self, file: &Path, context: &Path, image: &str) -> Result<(), PodmanError> {
        let arguments: [&OsStr; 7] = [
            "build".as_ref(),
            "--quiet".as_ref(),
            "--file".as_ref(),
            file.as_ref(),
            "--tag".as_ref(),
            image.as_ref(),
            context.as_ref(),
        ];
        self.run(&arguments, "").map(drop)
    }

    /// Gives an image another name.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn tag(&self, image: &str, name: &str) -> Result<(), PodmanError> {
        self.run(&["tag", image, name], "").map(drop)
    }

    /// Writes an image into an archive that other runtimes take, below [`Podman::host_root`].
    ///
    /// # Errors
    ///
    /// If Podman cannot.
    pub fn save(&self, image: &str) -> Result<PathBuf, PodmanError> {
        let archive = self.folder.path().join("saved.tar");
        // Podman adds to no archive that is there.
        let _ = fs::remove_file(&archive);
        let path = archive.display().to_string();
        self.run(&["save", "--quiet", "--output", &path, image], "")?;
        Ok(archive)
    }

    /// Starts what is in a manifest of Kubernetes.
    ///
    /// # Errors
    ///
    /// If Podman cannot.
    pub fn play(&self, manifest: &str) -> Result<(), PodmanError> {
        self.run(&["kube", "play", "-"], manifest).map(drop)
    }

    /// What a container wrote, whatever Podman thinks of it now.
    ///
    /// # Errors
    ///
    /// If there is no such container.
    pub fn logs(&self, container: &str) -> Result<String, PodmanError> {
        let output = self.run(&["logs", container], "")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(text(&output.stdout) + &text(&output.stderr))
    }

    /// Starts its service, which speaks its own API and that of Docker.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or makes no socket.
    pub fn serve(&self) -> Result<PodmanService, PodmanError> {
        let socket = self.folder.path().join("run/podman/podman.sock");
        if let Some(folder) = socket.parent() {
            fs::create_dir_all(folder).map_err(system("make a folder"))?;
        }
        let arguments = format!("unix://{}", socket.display());
        let mut command = self.command();
        command.args(["system", "service", "--time", "0", &arguments]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().map_err(system("run podman"))?;
        let service = PodmanService { process, socket };
        match wait_until(PATIENCE, || UnixStream::connect(&service.socket).is_ok()) {
            true => Ok(service),
            false => Err(PodmanError::Failed {
                arguments: format!("system service {arguments}"),
                said: "nobody answers at the socket".to_owned(),
            }),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.configuration());
        command.arg("--root").arg(self.storage()).arg("--runroot").arg(self.run_root());
        // What it knows of this boot. Resetting one Podman takes that away from all that share it.
        command.arg("--tmpdir").arg(self.folder.path().join("state"));
        command.args(["--cgroup-manager", "cgroupfs", "--runtime", "runc"]);
        command.args(["--events-backend", "none", "--log-level", "error"]);
        command
    }

    fn run<Argument: AsRef<OsStr>>(
        &self,
        arguments: &[Argument],
        input: &str,
    ) -> Result<Output, PodmanError> {
        let mut command = self.command();
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(system("run podman"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).map_err(system("write to podman"))?;
        }
        let output = child.wait_with_output().map_err(system("wait for podman"))?;
        let words = arguments.iter().map(|it| it.as_ref().to_string_lossy().into_owned());
        check(output, &words.collect::<Vec<_>>().join(" "))
    }
}

/// The service of a Podman. Dropped, it ends.
#[derive(Debug)]
pub struct PodmanService {
    process: Child,
    socket: PathBuf,
}

impl PodmanService {
    /// Where it answers.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for PodmanService {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Images, volumes and mounts too: nothing of them is anybody else's.
        for arguments in
            [&["pod", "rm", "--all", "--force", "--time", "0"][..], &["system", "reset", "--force"]]
        {
            let _ = self.run(arguments, "");
        }
    }
}

fn system(action: &str) -> impl FnOnce(io::Error) -> PodmanError {
    let action = action.to_owned();
    move |source| PodmanError::System { action, source }
}

fn check(output: Output, arguments: &str) -> Result<Output, PodmanError> {
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(PodmanError::Failed { arguments: arguments.to_owned(), said })
}
