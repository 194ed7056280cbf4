//! Other kernels: which ones, and how they come onto this machine.
//!
//! apt brings them, with lists and caches of its own below the target folder: the mirror is the one
//! that the machine's apt has for its own suite, signatures and hashes are checked as for any other
//! package, and the machine's suites and packages stay as they are.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A kernel that guests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Its version, as it is asked for.
    pub(crate) version: &'static str,
    /// The suite of Debian that has it.
    suite: &'static str,
    /// How the name of its package begins. It goes on with numbers.
    package: &'static str,
}

/// How the name of each package ends: the flavour without drivers for real hardware.
const FLAVOUR: &str = "-cloud-amd64";

/// The keys of every suite of Debian (package debian-archive-keyring, on every Debian).
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Every kernel, the oldest first.
pub(crate) const KERNELS: [Kernel; 4] = [
    Kernel { version: "5.10", suite: "bullseye", package: "linux-image-5.10.0-" },
    Kernel { version: "6.1", suite: "bookworm", package: "linux-image-6.1.0-" },
    Kernel { version: "6.12", suite: "bookworm-backports", package: "linux-image-6.12." },
    // Since 6.19 the package with the kernel itself has another name.
    Kernel { version: "7.3", suite: "trixie-backports", package: "linux-binary-7.3." },
];

/// Why a kernel is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelError {
    /// Nobody knows this one.
    #[error("there is no kernel {asked}: the known ones are {known}")]
    Unknown {
        /// What was asked for.
        asked: String,
        /// The versions.
        known: String,
    },
    /// The machine's apt has no mirror of Debian.
    #[error(
        "kernels come from the mirror of Debian that apt knows, and apt knows none here: run \
         `apt-get update`, or try on a Debian"
    )]
    NoMirror,
    /// A program could not be started.
    #[error("{program} cannot be started: {cause}")]
    Start {
        /// The program.
        program: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// A program failed.
    #[error("{program} failed for kernel {version}: {message}")]
    Failed {
        /// The program.
        program: &'static str,
        /// The version of the kernel.
        version: &'static str,
        /// What it wrote, on one line.
        message: String,
    },
    /// The suite has no such package any more.
    #[error("the suite {suite} has no package {package}*{FLAVOUR}")]
    NoPackage {
        /// The suite.
        suite: &'static str,
        /// How the name begins.
        package: &'static str,
    },
    /// The package holds no kernel where kernels are.
    #[error("the package {0} holds no vmlinuz")]
    NoKernel(String),
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

fn file_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> KernelError {
    let path = path.to_owned();
    move |cause| KernelError::File { path, action, cause }
}

impl Kernel {
    /// The kernel of this version.
    pub(crate) fn find(version: &str) -> Result<Kernel, KernelError> {
        KERNELS.into_iter().find(|kernel| kernel.version == version).ok_or_else(|| {
            KernelError::Unknown {
                asked: version.to_owned(),
                known: KERNELS.map(|kernel| kernel.version).join(", "),
            }
        })
    }

    /// Its image, fetched into `folder` where it is not there yet. The file has the name of the package.
    pub(crate) fn fetch(&self, folder: &Path) -> Result<PathBuf, KernelError> {
        let images = folder.join("images").join(self.version);
        fs::create_dir_all(&images).map_err(file_error(&images, "made"))?;
        if let Some(present) = newest(self, names_in(&images)?) {
            return Ok(images.join(present));
        }
        let apt = Apt::prepare(self, folder)?;
        apt.run("apt-get", &["update"])?;
        let names = apt.run("apt-cache", &["pkgnames", self.package])?;
        let package = newest(self, names.lines().map(str::to_owned))
            .ok_or(KernelError::NoPackage { suite: self.suite, package: self.package })?;
        apt.run("apt-get", &["download", &package])?;
        let image = images.join(&package);
        apt.unpack(&package, &image)?;
        Ok(image)
    }
}

/// The newest among the packages of this kernel, by the numbers in their names.
fn newest(kernel: &Kernel, names: impl IntoIterator<Item = String>) -> Option<String> {
    let numbers = |name: &str| -> Vec<u64> {
        let version = name.strip_suffix(FLAVOUR).unwrap_or(name);
        version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    names
        .into_iter()
        .filter(|name| name.starts_with(kernel.package) && name.ends_with(FLAVOUR))
        .max_by_key(|name| numbers(name))
}

fn names_in(folder: &Path) -> Result<Vec<String>, KernelError> {
    let entries = fs::read_dir(folder).map_err(file_error(folder, "read"))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// apt with one suite and folders of its own.
struct Apt {
    kernel: Kernel,
    folder: PathBuf,
}

impl Apt {
    fn prepare(kernel: &Kernel, folder: &Path) -> Result<Apt, KernelError> {
        let apt = Apt { kernel: *kernel, folder: folder.join("apt").join(kernel.suite) };
        for folder in ["lists/partial", "cache/archives/partial", "packages"] {
            let folder = apt.folder.join(folder);
            fs::create_dir_all(&folder).map_err(file_error(&folder, "made"))?;
        }
        let sources = apt.sources();
        let targets = targets(kernel)?;
        let mirror = mirror_of(&targets).ok_or(KernelError::NoMirror)?;
        let text = source(mirror, kernel, Path::new(KEYS));
        fs::write(&sources, text).map_err(file_error(&sources, "written"))?;
        Ok(apt)
    }

    fn sources(&self) -> PathBuf {
        self.folder.join("kernel.sources")
    }

    /// Runs a program of apt in the folder for packages, and gives what it writes.
    fn run(&self, program: &'static str, arguments: &[&str]) -> Result<String, KernelError> {
        let option = |name: &str, value: &Path| {
            let mut option = OsString::from(format!("{name}="));
            option.push(value);
            option
        };
        let options = [
            option("Dir::Etc::SourceList", &self.sources()),
            option("Dir::Etc::SourceParts", Path::new("-")),
            option("Dir::State::Lists", &self.folder.join("lists")),
            option("Dir::Cache", &self.folder.join("cache")),
            // Its own user cannot write here.
            "APT::Sandbox::User=root".into(),
        ];
        let mut command = Command::new(program);
        command
            .arg("-q")
            .args(options.iter().flat_map(|option| [OsString::from("-o"), option.clone()]));
        output_of(&self.kernel, program, command.args(arguments).current_dir(self.packages()))
    }

    fn packages(&self) -> PathBuf {
        self.folder.join("packages")
    }

    /// Takes the kernel out of a package that was fetched, and leaves nothing else of it.
    fn unpack(&self, package: &str, image: &Path) -> Result<(), KernelError> {
        let archive = names_in(&self.packages())?
            .into_iter()
            .find(|name| name.strip_prefix(package).is_some_and(|rest| rest.starts_with('_')))
            .ok_or_else(|| KernelError::NoKernel(package.to_owned()))?;
        let archive = self.packages().join(archive);
        let tree = self.packages().join("tree");
        let mut command = Command::new("dpkg-deb");
        output_of(&self.kernel, "dpkg-deb", command.arg("--extract").arg(&archive).arg(&tree))?;
        let found = vmlinuz_in(&tree).ok_or_else(|| KernelError::NoKernel(package.to_owned()))?;
        // Renamed when it is whole: whatever is there is a kernel.
        fs::rename(&found, image).map_err(file_error(&found, "moved"))?;
        fs::remove_dir_all(&tree).map_err(file_error(&tree, "removed"))?;
        fs::remove_file(&archive).map_err(file_error(&archive, "removed"))
    }
}

/// The kernel in the tree of a package: in `boot`, or in the folder of its modules.
fn vmlinuz_in(tree: &Path) -> Option<PathBuf> {
    let modules = fs::read_dir(tree.join("usr/lib/modules")).into_iter().flatten().flatten();
    std::iter::once(tree.join("boot"))
        .chain(modules.map(|entry| entry.path()))
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten())
        .find(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz"))
        .map(|entry| entry.path())
}

/// What apt can fetch on this machine.
fn targets(kernel: &Kernel) -> Result<String, KernelError> {
    let mut command = Command::new("apt-get");
    output_of(kernel, "apt-get", command.args(["indextargets", "Created-By: Packages"]))
}

/// Debian's own archive among what apt can fetch, as blocks of `Field: value` lines.
fn mirror_of(targets: &str) -> Option<&str> {
    targets.split("\n\n").find_map(|target| {
        let field = |wanted: &str| {
            let named = |line: &&str| line.split_once(": ").is_some_and(|(name, _)| name == wanted);
            Some(target.lines().find(named)?.split_once(": ")?.1.trim())
        };
        // Security updates are an archive of their own, with the same origin.
        let debian = field("Origin") == Some("Debian") && field("Label") == Some("Debian");
        if debian && field("Component") == Some("main") { field("Repo-URI") } else { None }
    })
}

/// The one entry of a list of sources. Debian's keys are named where they usually are; where they are
/// not, apt takes the keys that it trusts anyway.
fn source(mirror: &str, kernel: &Kernel, keys: &Path) -> String {
    let signed = match keys.exists() {
        true => format!("Signed-By: {}\n", keys.display()),
        false => String::new(),
    };
    format!(
        "Types: deb\nURIs: {mirror}\nSuites: {}\nComponents: main\nArchitectures: amd64\n{signed}",
        kernel.suite
    )
}

fn output_of(
    kernel: &Kernel,
    program: &'static str,
    command: &mut Command,
) -> Result<String, KernelError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| KernelError::Start { program, cause })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(KernelError::Failed { program, version: kernel.version, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_is_chosen_by_its_numbers() {
        let kernel = Kernel::find("6.12").unwrap();
        let check = |names: &[&str], expected: Option<&str>| {
            let names = names.iter().map(|name| (*name).to_owned());
            assert_eq!(newest(&kernel, names).as_deref(), expected);
        };
        check(
            &[
                "linux-image-6.12.9+deb12-cloud-amd64",
                "linux-image-6.12.90+deb12.1-cloud-amd64",
                "linux-image-6.12.90+deb12-cloud-amd64",
                "linux-image-6.12.95+deb12-amd64",
                "linux-image-6.12.95+deb12-cloud-amd64-unsigned",
                "linux-image-6.1.0-50-cloud-amd64",
            ],
            Some("linux-image-6.12.90+deb12.1-cloud-amd64"),
        );
        check(&["linux-image-6.1.0-50-cloud-amd64"], None);
    }

    #[test]
    fn a_kernel_that_nobody_knows_is_told_with_those_that_are_known() {
        let error = Kernel::find("4.19").unwrap_err().to_string();
        assert_eq!(error, "there is no kernel 4.19: the known ones are 5.10, 6.1, 6.12, 7.3");
    }

    #[test]
    fn the_mirror_is_debians_own_archive() {
        let target = |label: &str, address: &str| {
            format!("Origin: Debian\nLabel: {label}\nComponent: main\nRepo-URI: {address}")
        };
        let security = target("Debian-Security", "http://mirror/security/");
        let archive = target("Debian", "http://mirror/debian/");
        let both = format!("{security}\n\n{archive}\n");
        assert_eq!(mirror_of(&both), Some("http://mirror/debian/"));
        assert_eq!(mirror_of(&security), None);
        assert_eq!(mirror_of(""), None);
    }

    #[test]
    fn a_source_names_one_suite_and_the_keys_that_are_there() {
        let kernel = Kernel::find("5.10").unwrap();
        let check = |keys: &str, expected: &str| {
            assert_eq!(
                source("http://mirror/", &kernel, Path::new(keys)),
                format!(
                    "Types: deb\nURIs: http://mirror/\nSuites: bullseye\nComponents: main\n\
                     Architectures: amd64\n{expected}"
                )
            );
        };
        check("/nowhere/keys", "");
        check("/proc/version", "Signed-By: /proc/version\n");
    }
}
