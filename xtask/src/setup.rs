//! `cargo xtask setup`: what the other commands need on this machine.
//!
//! Owns the list of needs, each with a probe that tries the real thing and with the ways to get it.
//! Installs only what is missing for what was asked, says every command that it runs, and probes again
//! afterwards. Where rustup can add a piece, it does; else the distribution's package manager (apt)
//! does, which needs root.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use clap::ValueEnum;
use whodunit_artifacts::toolchain::{self, Goal, Toolchain};

use crate::elf::{self, Linkage};
use crate::vm::EMULATOR;

/// The releases that are known to work here.
const BPF_LINKER_VERSION: &str = "0.13.0";
const CARGO_DENY_VERSION: &str = "0.20.2";

/// How long rustup may take for a target that can be gone without.
const WASIP2_SECONDS: &str = "180";

/// The LLVM versions that this bpf-linker can be built with.
const BPF_LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// What something is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    /// Building the daemon, with its kernel programs and plugins
    Build,
    /// Running real containers
    Containers,
    /// The checks of `cargo xtask test`
    Test,
    /// Compiling the programs that tests run in containers
    Programs,
    /// Running other kernels in virtual machines
    Vm,
    /// Building plugins in other languages than Rust, and against WASI
    Languages,
    /// Measuring line coverage
    Coverage,
    /// The tools that benchmarks compare with
    Bench,
}

impl Purpose {
    /// What most people want.
    pub(crate) const USUAL: [Purpose; 7] = [
        Purpose::Build,
        Purpose::Containers,
        Purpose::Test,
        Purpose::Programs,
        Purpose::Languages,
        Purpose::Vm,
        Purpose::Coverage,
    ];

    /// What every check and test needs.
    pub(crate) const TESTED: [Purpose; 6] = [
        Purpose::Build,
        Purpose::Containers,
        Purpose::Test,
        Purpose::Programs,
        Purpose::Languages,
        Purpose::Vm,
    ];
}

/// Why something that is missing stays missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// Packages need root.
    #[error(
        "{what} is missing and installing it ({packages}) needs root: run `cargo xtask setup` as root"
    )]
    NotRoot {
        /// What is missing.
        what: &'static str,
        /// The packages.
        packages: String,
    },
    /// This is no Debian, nor one of its relatives.
    #[error(
        "{what} is missing and there is no apt-get here to install it: install what your \
         distribution calls {packages}"
    )]
    NoApt {
        /// What is missing.
        what: &'static str,
        /// Their names in Debian.
        packages: String,
    },
    /// A program could not be started.
    #[error("{program} cannot be started to install {what}: {cause}")]
    Start {
        /// What is missing.
        what: &'static str,
        /// The program.
        program: String,
        /// What the system said.
        cause: io::Error,
    },
    /// A folder for packages.
    #[error("{what} cannot be kept in {}: {cause}", folder.display())]
    Folder {
        /// What is missing.
        what: &'static str,
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A program failed.
    #[error("{what} is missing and `{command}` failed ({status}); its messages are above")]
    Failed {
        /// What is missing.
        what: &'static str,
        /// The command.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// The compiler's LLVM is not one that bpf-linker knows.
    #[error(
        "bpf-linker {BPF_LINKER_VERSION} cannot read what LLVM {} writes, which {compiler} is made \
         with: it takes LLVM {} to {}", found.map_or("?".to_owned(), |major| major.to_string()),
        BPF_LINKER_LLVM.start(), BPF_LINKER_LLVM.end()
    )]
    UnknownLlvm {
        /// The compiler.
        compiler: String,
        /// The major version of its LLVM.
        found: Option<u32>,
    },
    /// Everything was installed without an error and the probe still fails.
    #[error("{what} was installed and still does not work: {probe}")]
    StillMissing {
        /// What is missing.
        what: &'static str,
        /// What was tried, in words.
        probe: &'static str,
    },
}

/// Something that a machine must have.
struct Need {
    /// What it is.
    what: &'static str,
    /// What for.
    purpose: Purpose,
    /// What the probe tries, in words.
    probe: &'static str,
    is_met: fn() -> bool,
    install: fn(&mut Installer) -> Result<(), SetupError>,
    /// What is left out where it cannot be had. None where nothing goes without it.
    dispensable: Option<&'static str>,
}

/// Everything, in the order in which it can be installed.
const NEEDS: &[Need] = &[
    Need {
        what: "a toolchain for BPF",
        purpose: Purpose::Build,
        probe: "no rustc has the library `core` for it, nor its source",
        is_met: || toolchain::find(&kernel_goal()).is_ok(),
        install: install_kernel_toolchain,
        dispensable: None,
    },
    Need {
        what: "bpf-linker",
        purpose: Purpose::Build,
        probe: "`bpf-linker --version` does not run",
        is_met: || toolchain::find_bpf_linker().is_ok_and(|path| runs(&path)),
        install: install_bpf_linker,
        dispensable: None,
    },
    Need {
        what: "a toolchain for WebAssembly",
        purpose: Purpose::Build,
        probe: "no rustc has the library `std` for it, nor its source",
        is_met: || toolchain::find(&Goal::plugin()).is_ok(),
        install: install_plugin_toolchain,
        dispensable: None,
    },
    Need {
        what: "a linker for WebAssembly",
        purpose: Purpose::Build,
        probe: "there is neither rust-lld nor wasm-ld",
        is_met: || {
            toolchain::find(&Goal::plugin())
                .and_then(|found| toolchain::find_wasm_linker(&found))
                .is_ok()
        },
        install: install_wasm_linker,
        dispensable: None,
    },
    Need {
        what: "runc",
        purpose: Purpose::Containers,
        probe: "`runc --version` does not run",
        is_met: || program("runc").is_some_and(|path| runs(&path)),
        install: |installer| installer.apt(&["runc"]),
        dispensable: None,
    },
    Need {
        what: "a static busybox",
        purpose: Purpose::Containers,
        probe: "there is none, or it needs libraries that a container does not have",
        is_met: || {
            program("busybox").is_some_and(|path| {
                elf::linkage(&path).is_ok_and(|linkage| linkage == Linkage::Static)
            })
        },
        install: |installer| installer.apt(&["busybox-static"]),
        dispensable: None,
    },
    Need {
        what: "Podman",
        purpose: Purpose::Test,
        probe: "`podman --version` does not run, or there is no conmon or catatonit",
        is_met: || {
            program("podman").is_some_and(|path| runs(&path))
                && ["conmon", "catatonit"].iter().all(|name| program(name).is_some())
        },
        install: |installer| installer.apt(&["podman", "conmon", "catatonit"]),
        dispensable: None,
    },
    Need {
        what: "containerd",
        purpose: Purpose::Test,
        probe: "`containerd --version` or `ctr --version` does not run",
        is_met: || {
            ["containerd", "ctr"].iter().all(|name| program(name).is_some_and(|path| runs(&path)))
        },
        install: |installer| installer.apt(&["containerd"]),
        dispensable: None,
    },
    Need {
        what: "a compiler for musl",
        purpose: Purpose::Programs,
        probe: "there is no musl-gcc",
        is_met: || program("musl-gcc").is_some(),
        install: |installer| installer.apt(&["musl-tools"]),
        dispensable: None,
    },
    Need {
        what: "a C library for 32-bit programs",
        purpose: Purpose::Programs,
        probe: "there is no /usr/lib32/libc.a",
        is_met: || cfg!(not(target_arch = "x86_64")) || Path::new("/usr/lib32/libc.a").exists(),
        install: |installer| installer.apt(&["gcc-multilib"]),
        dispensable: None,
    },
    Need {
        what: "rustfmt and clippy",
        purpose: Purpose::Test,
        probe: "`cargo fmt --version` or `cargo clippy --version` does not run",
        is_met: || ["fmt", "clippy"].into_iter().all(cargo_has),
        install: |installer| installer.rustup(&["component", "add", "rustfmt", "clippy"]),
        dispensable: None,
    },
    Need {
        what: "cargo-deny",
        purpose: Purpose::Test,
        probe: "`cargo-deny --version` does not run",
        is_met: || installed("cargo-deny").is_some_and(|path| runs(&path)),
        install: install_cargo_deny,
        dispensable: None,
    },
    Need {
        what: "an emulator of x86_64 machines",
        purpose: Purpose::Vm,
        probe: "`qemu-system-x86_64 --version` does not run",
        is_met: || program(EMULATOR).is_some_and(|path| runs(&path)),
        install: |installer| installer.apt(&["qemu-system-x86"]),
        dispensable: None,
    },
    Need {
        what: "Debian's nginx, redis and PostgreSQL, as packages",
        purpose: Purpose::Test,
        probe: "they are not all below target/debian",
        is_met: || SERVERS.iter().all(|(name, _)| packages_of(name).is_dir()),
        install: |installer| {
            let missing = SERVERS.iter().filter(|(name, _)| !packages_of(name).is_dir());
            missing.into_iter().try_for_each(|(name, packages)| installer.download(name, packages))
        },
        dispensable: None,
    },
    Need {
        what: "Prometheus with promtool",
        purpose: Purpose::Test,
        probe: "`promtool --version` or `prometheus --version` does not run",
        is_met: || {
            ["promtool", "prometheus"]
                .into_iter()
                .all(|name| program(name).is_some_and(|path| runs(&path)))
        },
        install: |installer| installer.apt(&["prometheus"]),
        dispensable: None,
    },
    Need {
        what: "a container registry",
        purpose: Purpose::Test,
        probe: "`docker-registry --version` does not run",
        is_met: || program("docker-registry").is_some_and(|path| runs(&path)),
        install: |installer| installer.apt(&["docker-registry"]),
        dispensable: None,
    },
    Need {
        what: "Chromium with its driver",
        purpose: Purpose::Test,
        probe: "`chromium --version` or `chromedriver --version` does not run",
        is_met: || {
            ["chromium", "chromedriver"]
                .into_iter()
                .all(|name| program(name).is_some_and(|path| runs(&path)))
        },
        install: |installer| installer.apt(&["chromium", "chromium-driver"]),
        dispensable: None,
    },
    Need {
        what: "openssl and curl",
        purpose: Purpose::Test,
        probe: "`openssl version` or `curl --version` does not run",
        is_met: || {
            let mut openssl = Command::new("openssl");
            output_of(openssl.arg("version")).is_some()
                && program("curl").is_some_and(|path| runs(&path))
        },
        install: |installer| installer.apt(&["openssl", "curl"]),
        dispensable: None,
    },
    Need {
        what: "receivers of OTLP",
        purpose: Purpose::Test,
        probe: "`python -m oteltap --help` does not run, or there is no rotel",
        is_met: || {
            let mut python = Command::new(receivers().join("bin/python"));
            let mut tap = Command::new(receivers().join("bin/python"));
            output_of(python.args(["-c", "import rotel"])).is_some()
                && output_of(tap.args(["-m", "oteltap", "--help"])).is_some()
        },
        install: |installer| {
            let requirements = workspace_root().join("tests/receivers/requirements.txt");
            install_from_pypi(installer, &receivers(), &requirements)
        },
        dispensable: None,
    },
    Need {
        what: "the target wasm32-wasip2 of Rust",
        purpose: Purpose::Languages,
        probe: "no rustc has the library `std` for it",
        is_met: || toolchain::find(&Goal::system_plugin()).is_ok(),
        install: install_wasip2,
        dispensable: Some("the trials of plugins for it will be skipped"),
    },
    Need {
        what: "zig, which compiles plugins in C",
        purpose: Purpose::Languages,
        probe: "`python -m ziglang version` does not run",
        is_met: || {
            let mut python = Command::new(languages().join("venv/bin/python"));
            output_of(python.args(["-m", "ziglang", "version"])).is_some()
        },
        install: |installer| install_for_language(installer, "c"),
        dispensable: None,
    },
    Need {
        what: "componentize-py",
        purpose: Purpose::Languages,
        probe: "`componentize-py --version` does not run",
        is_met: || runs(&languages().join("venv/bin/componentize-py")),
        install: |installer| install_for_language(installer, "python"),
        dispensable: None,
    },
    Need {
        what: "kubernetes-validate",
        purpose: Purpose::Test,
        probe: "`kubernetes-validate --version` does not run",
        is_met: || runs(&languages().join("venv/bin/kubernetes-validate")),
        install: |installer| {
            let requirements = workspace_root().join("tests/python/requirements.txt");
            install_from_pypi(installer, &languages().join("venv"), &requirements)
        },
        dispensable: None,
    },
    Need {
        what: "componentize-qjs",
        purpose: Purpose::Languages,
        probe: "`componentize-qjs --help` does not run",
        is_met: || {
            let mut program = Command::new(languages().join("node_modules/.bin/componentize-qjs"));
            output_of(program.arg("--help")).is_some()
        },
        install: install_componentize_qjs,
        dispensable: None,
    },
    Need {
        what: "llvm-profdata and llvm-cov of the compiler's LLVM",
        purpose: Purpose::Coverage,
        probe: "there are none, or of another version only",
        is_met: || ["llvm-profdata", "llvm-cov"].iter().all(|name| llvm_tool(name).is_some()),
        install: install_llvm_tools,
        dispensable: None,
    },
    Need {
        what: "bpftrace",
        purpose: Purpose::Bench,
        probe: "`bpftrace --version` does not run",
        is_met: || program("bpftrace").is_some_and(|path| runs(&path)),
        install: |installer| installer.apt(&["bpftrace"]),
        dispensable: None,
    },
    Need {
        what: "Debian's wrk, as a package",
        purpose: Purpose::Bench,
        probe: "it is not below target/debian",
        is_met: || packages_of("wrk").is_dir(),
        install: |installer| installer.download("wrk", &["wrk"]),
        dispensable: None,
    },
    Need {
        what: "opensnoop of libbpf-tools",
        purpose: Purpose::Bench,
        probe: "there is none",
        is_met: || program("opensnoop").is_some(),
        install: |installer| installer.apt(&["libbpf-tools"]),
        dispensable: None,
    },
];

/// The servers that are run from a root of nothing but their packages, with what they need beside their
/// dependencies: a shell is essential in Debian, so that no package asks for it.
const SERVERS: [(&str, &[&str]); 3] = [
    ("nginx", &["nginx"]),
    ("redis", &["redis-server", "redis-tools"]),
    ("postgresql", &["postgresql", "dash"]),
];

/// Where the packages of a server lie.
pub(crate) fn packages_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debian").join(name)
}

/// Installs what is missing for these purposes.
pub(crate) fn run(purposes: &[Purpose]) -> Result<(), SetupError> {
    let wanted = NEEDS.iter().filter(|need| purposes.contains(&need.purpose));
    let missing: Vec<&Need> = wanted.filter(|need| !(need.is_met)()).collect();
    for need in &missing {
        let purpose = need.purpose.to_possible_value();
        let purpose = purpose.as_ref().map_or("everything", |value| value.get_name());
        println!("setup: {} is missing (for {purpose})", need.what);
    }
    let mut installer = Installer { what: "", lists_are_fresh: false };
    missing.into_iter().try_for_each(|need| need.meet(&mut installer))
}

impl Need {
    /// Gets it, or says what is left out without it.
    fn meet(&self, installer: &mut Installer) -> Result<(), SetupError> {
        match (self.get(installer), self.dispensable) {
            (Err(error), Some(left_out)) => {
                println!("setup: {error}; {left_out}");
                Ok(())
            }
            (done, _) => done,
        }
    }

    fn get(&self, installer: &mut Installer) -> Result<(), SetupError> {
        // An earlier installation may have brought it.
        if (self.is_met)() {
            return Ok(());
        }
        installer.what = self.what;
        (self.install)(installer)?;
        match (self.is_met)() {
            true => Ok(()),
            false => Err(SetupError::StillMissing { what: self.what, probe: self.probe }),
        }
    }
}

/// A program that `cargo install` puts somewhere, in PATH or not.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    toolchain::in_path(name)
        .or_else(|| Some(toolchain::cargo_bin().join(name)).filter(|path| path.is_file()))
}

/// A tool of LLVM, of the version that the current compiler is made with: profiles of another one may
/// not be readable.
pub(crate) fn llvm_tool(name: &str) -> Option<PathBuf> {
    let current = toolchain::current();
    let major = current.llvm_major()?;
    let fits = |path: &Path| {
        output_of(Command::new(path).arg("--version"))
            .is_some_and(|text| text.contains(&format!("LLVM version {major}.")))
    };
    let of_rustup = current.shipped_tools().into_iter().map(|folder| folder.join(name));
    let of_system = [format!("{name}-{major}"), name.to_owned()];
    let of_system = of_system.iter().filter_map(|name| toolchain::in_path(name));
    of_rustup.chain(of_system).find(|path| fits(path))
}

/// Runs what installs, and says so.
struct Installer {
    /// What is being installed.
    what: &'static str,
    /// Whether apt has read the lists of packages in this run.
    lists_are_fresh: bool,
}

impl Installer {
    /// Installs packages of the distribution.
    fn apt<S: AsRef<str>>(&mut self, packages: &[S]) -> Result<(), SetupError> {
        let packages: Vec<&str> = packages.iter().map(AsRef::as_ref).collect();
        let (what, names) = (self.what, packages.join(" "));
        if toolchain::in_path("apt-get").is_none() {
            return Err(SetupError::NoApt { what, packages: names });
        }
        if !rustix::process::geteuid().is_root() {
            return Err(SetupError::NotRoot { what, packages: names });
        }
        if !self.lists_are_fresh {
            // Old lists may do where the new ones cannot be had.
            let _ = self.run(apt_get().arg("update"));
            self.lists_are_fresh = true;
        }
        self.run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages))
    }

    /// Fetches packages with everything that they depend on, whatever is installed here, and installs
    /// nothing.
    fn download(&mut self, name: &str, packages: &[&str]) -> Result<(), SetupError> {
        let what = self.what;
        if toolchain::in_path("apt-get").is_none() {
            return Err(SetupError::NoApt { what, packages: packages.join(" ") });
        }
        let begun = packages_of(&format!("{name}.part"));
        let status = begun.join("status");
        let made = std::fs::create_dir_all(begun.join("partial"))
            // The status of a system on which nothing is installed.
            .and_then(|()| std::fs::write(&status, ""));
        made.map_err(|cause| self.no_folder(&begun, cause))?;
        let mut apt = apt_get();
        apt.args(["install", "--yes", "--no-install-recommends", "--download-only"])
            .args(["-o", "Debug::NoLocking=1"])
            .arg("-o")
            .arg(format!("Dir::State::status={}", status.display()))
            .arg("-o")
            .arg(format!("Dir::Cache::archives={}", begun.display()))
            .args(packages);
        if self.run(&mut apt).is_err() {
            // The lists may be too old to name packages that are still there.
            let _ = self.run(apt_get().arg("update"));
            self.run(&mut apt)?;
        }
        std::fs::rename(&begun, packages_of(name)).map_err(|cause| self.no_folder(&begun, cause))
    }

    fn no_folder(&self, folder: &Path, cause: io::Error) -> SetupError {
        SetupError::Folder { what: self.what, folder: folder.to_owned(), cause }
    }

    /// Lets rustup change the current toolchain.
    fn rustup(&self, arguments: &[&str]) -> Result<(), SetupError> {
        self.run(Command::new("rustup").args(arguments))
    }

    /// Like `rustup`, where there may be none, or one that reaches no network: returns whether it did.
    fn rustup_may(&self, arguments: &[&str]) -> bool {
        toolchain::in_path("rustup").is_some() && self.rustup(arguments).is_ok()
    }

    /// Builds and installs a program from the registry.
    fn cargo(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), SetupError> {
        let mut command = crate::workspace::cargo_in(Path::new("/"));
        command.args(["install", "--locked", "--quiet"]).args(arguments);
        // Flags and folders that were set for the workspace are not meant for tools.
        for name in
            ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS"]
        {
            command.env_remove(name);
        }
        self.run(command.envs(environment.iter().copied()))
    }

    fn run(&self, command: &mut Command) -> Result<(), SetupError> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        println!("setup: {line}");
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(SetupError::Failed { what: self.what, command: line, status }),
            Err(cause) => Err(SetupError::Start {
                what: self.what,
                program: command.get_program().to_string_lossy().into_owned(),
                cause,
            }),
        }
    }
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Another installation may be under way.
        .args(["-qq", "-o", "DPkg::Lock::Timeout=300"]);
    command
}

fn kernel_goal() -> Goal {
    Goal::kernel(cfg!(target_endian = "big"))
}

fn install_kernel_toolchain(installer: &mut Installer) -> Result<(), SetupError> {
    if installer.rustup_may(&["component", "add", "rust-src"]) {
        return Ok(());
    }
    installer.apt(&["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"])
}

fn install_plugin_toolchain(installer: &mut Installer) -> Result<(), SetupError> {
    if installer.rustup_may(&["target", "add", "wasm32-unknown-unknown"]) {
        return Ok(());
    }
    installer.apt(&["rustc-web", "cargo-web", "rust-web-src"])
}

/// Only rustup has it, and it may reach no network: it gets a while.
fn install_wasip2(installer: &mut Installer) -> Result<(), SetupError> {
    let mut rustup = Command::new("timeout");
    rustup.args(["--kill-after=5", WASIP2_SECONDS, "rustup", "target", "add", "wasm32-wasip2"]);
    installer.run(&mut rustup)
}

/// The linker reads the compiler's bitcode: it must be built with an LLVM that is not older.
fn install_bpf_linker(installer: &mut Installer) -> Result<(), SetupError> {
    let compiler = match toolchain::find(&kernel_goal()) {
        Ok(found) => found.toolchain,
        Err(_) => toolchain::current(),
    };
    let major = match compiler.llvm_major() {
        Some(major) if BPF_LINKER_LLVM.contains(&major) => major,
        found => {
            let compiler = compiler.version().unwrap_or_else(|| "the compiler".to_owned());
            return Err(SetupError::UnknownLlvm { compiler, found });
        }
    };
    let config = format!("llvm-config-{major}");
    if toolchain::in_path(&config).is_none() {
        installer.apt(&[format!("llvm-{major}-dev")])?;
    }
    let prefix = output_of(Command::new(&config).arg("--prefix")).unwrap_or_default();
    installer.cargo(
        &[
            "bpf-linker",
            "--version",
            BPF_LINKER_VERSION,
            "--no-default-features",
            "--features",
            &format!("llvm-{major}"),
        ],
        &[("LLVM_PREFIX", prefix.trim())],
    )
}

fn install_wasm_linker(installer: &mut Installer) -> Result<(), SetupError> {
    let found = toolchain::find(&Goal::plugin()).map(|found| found.toolchain);
    let major = found.ok().as_ref().and_then(Toolchain::llvm_major);
    installer.apt(&[major.map_or_else(|| "lld".to_owned(), |major| format!("lld-{major}"))])
}

/// Built without optimization: it runs for a second, and would be compiled for minutes.
fn install_cargo_deny(installer: &mut Installer) -> Result<(), SetupError> {
    installer.cargo(
        &["cargo-deny", "--version", CARGO_DENY_VERSION, "--debug"],
        &[("CARGO_PROFILE_DEV_DEBUG", "false")],
    )
}

/// Where the tools of other languages are put: nothing of the machine is changed for them.
fn languages() -> PathBuf {
    workspace_root().join("target/languages")
}

fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The example of that language, which says with what releases it is built.
fn example(language: &str) -> PathBuf {
    workspace_root().join("plugins/examples/top-folders").join(language)
}

/// Where the receivers of OTLP are put, that trials send to.
fn receivers() -> PathBuf {
    workspace_root().join("target/receivers/venv")
}

fn install_for_language(installer: &mut Installer, language: &str) -> Result<(), SetupError> {
    let requirements = example(language).join("requirements.txt");
    install_from_pypi(installer, &languages().join("venv"), &requirements)
}

/// Installs what a file of requirements lists into a virtual environment.
fn install_from_pypi(
    installer: &mut Installer,
    venv: &Path,
    requirements: &Path,
) -> Result<(), SetupError> {
    let python = venv.join("bin/python");
    // Its scripts name their interpreter by its path: in a target folder that was moved or copied, by another one.
    let place = venv.display().to_string();
    let pip = output_of(Command::new(venv.join("bin/pip")).arg("--version"));
    if !runs(&python) || !pip.is_some_and(|says| says.contains(&place)) {
        if output_of(Command::new("python3").args(["-m", "ensurepip", "--version"])).is_none() {
            installer.apt(&["python3-venv"])?;
        }
        installer.run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(venv))?;
    }
    installer.run(
        Command::new(python)
            .args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(requirements),
    )
}

fn install_componentize_qjs(installer: &mut Installer) -> Result<(), SetupError> {
    if program("npm").is_none() {
        installer.apt(&["nodejs", "npm"])?;
    }
    let folder = languages();
    let copied = std::fs::create_dir_all(&folder).and_then(|()| {
        std::fs::copy(example("js").join("package.json"), folder.join("package.json"))
    });
    if let Err(cause) = copied {
        let program = format!("a copy of package.json in {}", folder.display());
        return Err(SetupError::Start { what: installer.what, program, cause });
    }
    let mut npm = Command::new("npm");
    installer.run(npm.args(["install", "--no-audit", "--no-fund", "--silent"]).current_dir(folder))
}

fn install_llvm_tools(installer: &mut Installer) -> Result<(), SetupError> {
    if installer.rustup_may(&["component", "add", "llvm-tools"]) {
        return Ok(());
    }
    let major = toolchain::current().llvm_major();
    installer.apt(&[major.map_or_else(|| "llvm".to_owned(), |major| format!("llvm-{major}"))])
}

/// A program of the system: of PATH, or of the folders that only root has in it.
fn program(name: &str) -> Option<PathBuf> {
    let of_root = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
    let of_root = of_root.iter().map(|folder| Path::new(folder).join(name));
    toolchain::in_path(name).or_else(|| of_root.into_iter().find(|path| path.is_file()))
}

fn cargo_has(subcommand: &str) -> bool {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    output_of(Command::new(cargo).args([subcommand, "--version"])).is_some()
}

fn runs(program: &Path) -> bool {
    output_of(Command::new(program).arg("--version")).is_some()
}

fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_told_in_one_sentence_with_what_and_how() {
        let installer = Installer { what: "a thing", lists_are_fresh: true };
        let failed = installer.run(Command::new("/bin/sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(
            failed.to_string(),
            "a thing is missing and `/bin/sh -c exit 3` failed (exit status: 3); its messages are above"
        );
        let absent = installer.run(&mut Command::new("/nowhere/program")).unwrap_err();
        assert!(absent.to_string().starts_with("/nowhere/program cannot be started"), "{absent}");
    }

    #[test]
    fn what_can_be_gone_without_stops_nothing_and_the_rest_does() {
        let need = |install, dispensable| Need {
            what: "a thing",
            purpose: Purpose::Build,
            probe: "it is not there",
            is_met: || false,
            install,
            dispensable,
        };
        let fails = |installer: &mut Installer| installer.run(&mut Command::new("/bin/false"));
        let does_nothing = |_: &mut Installer| Ok(());
        let mut installer = Installer { what: "", lists_are_fresh: true };
        let mut meets = |need: Need| need.meet(&mut installer).is_ok();
        assert!(meets(need(fails, Some("nothing runs"))));
        assert!(meets(need(does_nothing, Some("nothing runs"))));
        assert!(!meets(need(fails, None)));
        assert!(!meets(need(does_nothing, None)));
    }

    #[test]
    fn every_purpose_has_a_need() {
        for purpose in Purpose::value_variants() {
            assert!(NEEDS.iter().any(|need| need.purpose == *purpose), "{purpose:?}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_does_not_run() {
        assert!(runs(Path::new("/bin/cat")));
        assert!(!runs(Path::new("/nowhere/program")));
        assert_eq!(installed("no-such-program-anywhere"), None);
        assert_eq!(program("no-such-program-anywhere"), None);
    }
}
