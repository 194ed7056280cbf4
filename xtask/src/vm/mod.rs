//! `cargo xtask vm`: the integration trials on other kernels.
//!
//! A guest is a kernel of Debian and an image in memory with the daemon, the trials and what they run.
//! Nothing is installed in it and nothing is left of it. It has what this machine may lack: a kernel of
//! another age, cgroup v2 with every controller, programs of every type.

mod guest;
mod image;
mod kernel;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use whodunit_containers::program::PROGRAMS as COMPILED;
use whodunit_containers::{ProgramError, find_program};

use crate::setup::{self, Purpose, SetupError};
use crate::steps::Steps;
use crate::tally::Tally;
use crate::workspace::{Built, CargoError, INTEGRATION_TESTS, Workspace, daemon_of};

pub(crate) use guest::EMULATOR;
use guest::{GuestError, Patience};
use image::{Image, ImageError};
use kernel::{KERNELS, Kernel, KernelError};

/// A guest is slow, and hangs only if it does nothing at all: the slowest trial waits for minutes.
const PATIENCE: Patience =
    Patience { in_all: Duration::from_secs(45 * 60), silent: Duration::from_secs(5 * 60) };

/// The first process of a guest.
const INIT: &str = include_str!("init.sh");

/// What trials run beside the daemon: programs of this machine.
const PROGRAMS: [&str; 3] = ["runc", "setpriv", "unshare"];

/// What trials are told of a machine whose processors are emulated, and that nobody else needs.
const SLOW_MACHINE: &str = "WHODUNIT_SLOWNESS=8 WHODUNIT_SHARED_CACHE=/var/cache/whodunit \
                            WHODUNIT_EXPENDABLE_MACHINE=yes";

/// Why a guest did not run its trials to the end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VmError {
    /// Something is missing and cannot be installed.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The daemon or the trials could not be built.
    #[error(transparent)]
    Cargo(#[from] CargoError),
    /// There is no kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// There is no image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The guest.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// Guests have the processor that the programs are built for.
    #[error("guests are x86_64 machines, and this is none: run this on an x86_64 machine")]
    Architecture,
    /// A program that trials run could not be compiled.
    #[error(transparent)]
    Compiled(#[from] ProgramError),
    /// A program that trials run.
    #[error("there is no `{0}` on this machine")]
    Missing(&'static str),
    /// A program could not be made smaller.
    #[error("`strip` failed on {}: {cause}; it comes with the package binutils", path.display())]
    Strip {
        /// The program.
        path: PathBuf,
        /// How.
        cause: String,
    },
    /// A file or folder.
    #[error("{} cannot be {action}: {cause}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        cause: io::Error,
    },
}

fn file_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> VmError {
    let path = path.to_owned();
    move |cause| VmError::File { path, action, cause }
}

/// Runs the trials whose names contain one of `filters`, or all, on each of these kernels, or on all.
pub(crate) fn run(
    workspace: &Workspace,
    kernels: &[String],
    filters: &[String],
) -> Result<ExitCode, VmError> {
    let kernels: Vec<Kernel> = match kernels {
        [] => KERNELS.into(),
        asked => asked.iter().map(|version| Kernel::find(version)).collect::<Result<_, _>>()?,
    };
    setup::run(&[Purpose::Build, Purpose::Containers, Purpose::Programs, Purpose::Vm])?;
    let built = workspace.build(&["build", "--release", "--workspace", "--all-targets"], &[])?;
    let guests = Guests::prepare(workspace, &built)?;
    let mut steps = Steps::default();
    for kernel in kernels {
        steps.counted(&format!("kernel {}", kernel.version), || guests.run(kernel, filters));
    }
    Ok(if steps.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What `cargo xtask test` runs in a guest: enough to tell whether the daemon works on the oldest kernel that
/// it is for. `cargo xtask vm` runs everything.
pub(crate) const SAMPLE: [(&str, &[&str]); 1] = [(
    "5.10",
    &[
        "capture::a_missing",
        "program_is_seen_on_every_road",
        "roads::a_script_of_a_script",
        "exact::ways_beside_the_calls",
        "deaths::memory_at_the_container",
    ],
)];

/// Runs the sample. It is skipped where guests cannot be: on a machine that is no x86_64, or whose apt
/// knows no mirror of Debian.
pub(crate) fn test(workspace: &Workspace, built: &[Built], steps: &mut Steps) {
    for (version, filters) in SAMPLE {
        let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
        let run = || Guests::prepare(workspace, built)?.run(Kernel::find(version)?, &filters);
        steps.counted(&format!("kernel {version}"), || match run() {
            Err(reason @ (VmError::Architecture | VmError::Kernel(KernelError::NoMirror))) => {
                println!("skipped: {reason}");
                Ok(Tally::SKIPPED)
            }
            counted => counted,
        });
    }
}

/// What every guest gets.
pub(crate) struct Guests {
    folder: PathBuf,
    /// The root of the workspace, which has the same place in a guest.
    root: PathBuf,
    daemon: PathBuf,
    trials: PathBuf,
    /// Where each executable of the workspace is in a guest, and its smaller copy here.
    executables: Vec<(PathBuf, PathBuf)>,
}

impl Guests {
    /// Prepares what was built. Everything lies below the target folder.
    pub(crate) fn prepare(workspace: &Workspace, built: &[Built]) -> Result<Guests, VmError> {
        if cfg!(not(target_arch = "x86_64")) {
            return Err(VmError::Architecture);
        }
        let folder = workspace.target_dir.join("vm");
        let stripped = folder.join("programs");
        fs::create_dir_all(&stripped).map_err(file_error(&stripped, "made"))?;
        let missing = |missing| CargoError::Unexpected { command: "build".into(), missing };
        let daemon = daemon_of(built).ok_or(missing("executable named whodunit"))?;
        let trials = built
            .iter()
            .find(|executable| executable.is_test && executable.target == INTEGRATION_TESTS)
            .ok_or(missing("integration trials"))?
            .path
            .clone();
        let mut executables = Vec::new();
        for executable in built {
            let wanted = executable.path == trials || !executable.is_test;
            if wanted && executable.target != "xtask" {
                let small = stripped.join(executable.path.file_name().unwrap_or_default());
                strip(&executable.path, &small)?;
                executables.push((executable.path.clone(), small));
            }
        }
        Ok(Guests { folder, root: workspace.root.clone(), daemon, trials, executables })
    }

    /// Runs trials on a kernel and gives what they counted.
    pub(crate) fn run(&self, kernel: Kernel, filters: &[String]) -> Result<Tally, VmError> {
        let kernel_image = kernel.fetch(&self.folder)?;
        let name = kernel_image.file_name().unwrap_or_default().to_string_lossy().into_owned();
        println!("{name}");
        let image = self.folder.join(format!("{}.cpio", kernel.version));
        self.image(filters)?.write(&image)?;
        let messages = guest::messages_of(&self.folder, kernel.version);
        let said = guest::run(&kernel_image, &image, &messages, PATIENCE)?;
        if let Some(seconds) = said.up_after {
            println!("{name}: {} after {seconds} s to the first trial", said.tally);
        }
        Ok(said.tally)
    }

    fn image(&self, filters: &[String]) -> Result<Image, VmError> {
        let mut image = Image::default();
        let folders = [
            "/bin",
            "/dev",
            "/etc",
            "/mnt",
            "/proc",
            "/root",
            "/run",
            "/sys",
            "/tmp",
            "/var/cache",
        ];
        for folder in folders {
            image.folder(folder);
        }
        image.content("/init", INIT, 0o755);
        image.content("/trials", self.script(filters), 0o755);
        image.content("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644);
        image.content("/etc/group", "root:x:0:\n", 0o644);
        let busybox = find_program("busybox").ok_or(VmError::Missing("busybox"))?;
        image.copy(busybox, "/bin/busybox");
        for program in PROGRAMS {
            image.program(&find_program(program).ok_or(VmError::Missing(program))?)?;
        }
        for program in COMPILED {
            image.program(&program.make()?)?;
        }
        for (place, small) in &self.executables {
            image.copy(small, place);
        }
        for file in documents(&self.root)? {
            image.copy(&file, &file);
        }
        Ok(image)
    }

    /// What a guest runs when it is up: the trials that fit one of the filters, in one run.
    fn script(&self, filters: &[String]) -> String {
        format!(
            "cd {}\nexport WHODUNIT_BIN={} {SLOW_MACHINE}\n{} --color=never {}\n\
             echo \"guest: status $?\"\n",
            quoted(&self.root.to_string_lossy()),
            quoted(&self.daemon.to_string_lossy()),
            quoted(&self.trials.to_string_lossy()),
            quoted(&filters.join(","))
        )
    }
}

/// What trials read of the repository: the contract and the schemas.
fn documents(root: &Path) -> Result<Vec<PathBuf>, VmError> {
    let mut files = vec![root.join("plugins/report-json/report.schema.json")];
    let contract = root.join("wit");
    let entries = fs::read_dir(&contract).map_err(file_error(&contract, "read"))?;
    files.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
    Ok(files)
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Symbols are the greater part of an executable, and every byte of it is memory of the guest.
fn strip(from: &Path, to: &Path) -> Result<(), VmError> {
    let failed = |cause: String| VmError::Strip { path: from.to_owned(), cause };
    let status = Command::new("strip")
        .args(["--strip-all", "-o"])
        .arg(to)
        .arg(from)
        .stdin(Stdio::null())
        .status()
        .map_err(|cause| failed(cause.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(status.to_string())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_filters_are_one_run_of_the_trials() {
        let guests = Guests {
            folder: "/t/vm".into(),
            root: "/it's".into(),
            daemon: "/t/whodunit".into(),
            trials: "/t/trials".into(),
            executables: Vec::new(),
        };
        let check = |filters: &[&str], expected: &str| {
            let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
            assert_eq!(
                guests.script(&filters),
                format!(
                    "cd '/it'\\''s'\nexport WHODUNIT_BIN='/t/whodunit' {SLOW_MACHINE}\n{expected}"
                )
            );
        };
        check(&[], "'/t/trials' --color=never ''\necho \"guest: status $?\"\n");
        check(&["a", "b::"], "'/t/trials' --color=never 'a,b::'\necho \"guest: status $?\"\n");
    }
}
