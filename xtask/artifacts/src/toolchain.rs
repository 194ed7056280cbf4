//! Which toolchain of this machine can build for a target that is not the machine itself.
//!
//! Asks every toolchain that may be there, in order: the current one, rustup's nightly, the
//! distribution's in `/usr/bin`. Believes no version and no package list: a toolchain can do it if its
//! `rustc` answers and the library for the target is there, ready-made or as source.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is to be built, as far as a toolchain is concerned.
#[derive(Clone, Debug)]
pub struct Goal {
    /// The target triple.
    pub target: &'static str,
    /// The crate of the standard library that has to be there: `core` or `std`.
    library: &'static str,
    /// What it builds, for messages.
    what: &'static str,
    /// The flag by which cargo builds the library from its source. None where the source alone does not do.
    build_std: Option<&'static str>,
    /// Whether the code itself uses what only nightly compilers take.
    unstable: bool,
}

impl Goal {
    /// The kernel programs.
    pub fn kernel(big_endian: bool) -> Goal {
        Goal {
            target: if big_endian { "bpfeb-unknown-none" } else { "bpfel-unknown-none" },
            library: "core",
            what: "the kernel programs",
            build_std: Some("-Zbuild-std=core"),
            unstable: true,
        }
    }

    /// The plugins.
    pub fn plugin() -> Goal {
        Goal {
            target: "wasm32-unknown-unknown",
            library: "std",
            what: "the plugins",
            build_std: Some("-Zbuild-std=std,panic_abort"),
            unstable: false,
        }
    }

    /// Plugins against the WebAssembly System Interface, which come out of cargo as components. Their C library is shipped
    /// with the target and in no source of Rust.
    pub fn system_plugin() -> Goal {
        Goal {
            target: "wasm32-wasip2",
            library: "std",
            what: "plugins against WASI",
            build_std: None,
            unstable: false,
        }
    }
}

/// A cargo and the compiler that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Its cargo.
    pub cargo: PathBuf,
    /// Its rustc.
    pub rustc: PathBuf,
}

/// A toolchain that reaches a goal, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The toolchain.
    pub toolchain: Toolchain,
    /// The flag that makes cargo build the standard library. None where it is there ready-made.
    pub(crate) build_std: Option<&'static str>,
    /// Whether the compiler must be told to take what only nightly compilers take.
    pub(crate) bootstrap: bool,
}

impl Found {
    /// What a cargo in PATH has to be told to build a crate outside this workspace for the goal, by names
    /// of variables and their values.
    pub fn environment(&self, linker: Option<&Path>) -> Vec<(&'static str, OsString)> {
        let mut environment = Vec::new();
        if let (Some(folder), Some(path)) = (self.toolchain.rustc.parent(), env::var_os("PATH")) {
            let folders = std::iter::once(folder.to_owned()).chain(env::split_paths(&path));
            environment.extend(env::join_paths(folders).ok().map(|path| ("PATH", path)));
        }
        environment.push(("RUSTC", self.toolchain.rustc.clone().into_os_string()));
        if self.bootstrap {
            environment.push(("RUSTC_BOOTSTRAP", "1".into()));
        }
        if let Some(crates) = self.build_std.and_then(|flag| flag.strip_prefix("-Zbuild-std=")) {
            environment.push(("CARGO_UNSTABLE_BUILD_STD", crates.into()));
        }
        if let Some(linker) = linker {
            environment.push(("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker.into()));
        }
        environment
    }
}

/// What this machine lacks, and the way out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Missing {
    /// No toolchain reaches the goal.
    #[error(
        "no Rust toolchain here can build {what}: {asked} has neither the library `{library}` for \
         {target} nor its source (rust-src); `cargo xtask setup` installs what is missing"
    )]
    Toolchain {
        /// What was to be built.
        what: &'static str,
        /// The target triple.
        target: &'static str,
        /// The crate of the standard library.
        library: &'static str,
        /// Who was asked, in words.
        asked: String,
    },
    /// There is no bpf-linker.
    #[error(
        "bpf-linker is neither in PATH nor in {}: the kernel programs cannot be linked; \
         `cargo xtask setup` installs it", bin.display()
    )]
    BpfLinker {
        /// Where cargo puts what it installs.
        bin: PathBuf,
    },
    /// There is no linker for WebAssembly.
    #[error(
        "neither rust-lld nor wasm-ld is here: the plugins cannot be linked; `cargo xtask setup` \
         installs one"
    )]
    WasmLinker,
}

/// The first toolchain that reaches the goal. One with the ready-made library wins over one that would
/// have to build it first.
///
/// # Errors
///
/// `Missing::Toolchain` where there is none.
pub fn find(goal: &Goal) -> Result<Found, Missing> {
    let candidates: Vec<Toolchain> =
        candidates().into_iter().filter(|toolchain| toolchain.answers()).collect();
    let ready_made = candidates.iter().find(|toolchain| toolchain.has_ready_made(goal));
    let from_source = |flag| {
        let toolchain = candidates.iter().find(|toolchain| toolchain.has_source(goal))?;
        Some((toolchain, Some(flag)))
    };
    let found = match ready_made {
        Some(toolchain) => Some((toolchain, None)),
        None => goal.build_std.and_then(from_source),
    };
    let (toolchain, build_std) = found.ok_or_else(|| missing(goal, &candidates))?;
    Ok(Found {
        toolchain: toolchain.clone(),
        build_std,
        bootstrap: goal.unstable || build_std.is_some(),
    })
}

/// The bpf-linker in PATH, or else where `cargo install` puts it.
///
/// # Errors
///
/// `Missing::BpfLinker` where there is none.
pub fn find_bpf_linker() -> Result<PathBuf, Missing> {
    let bin = cargo_bin();
    in_path("bpf-linker")
        .or_else(|| Some(bin.join("bpf-linker")).filter(|path| path.is_file()))
        .ok_or(Missing::BpfLinker { bin })
}

/// The linker that the toolchain of `found` must be told to use for WebAssembly. None where it has its
/// own: distributions leave `rust-lld` out of their toolchains, but any LLVM linker does.
///
/// # Errors
///
/// `Missing::WasmLinker` where there is none.
pub fn find_wasm_linker(found: &Found) -> Result<Option<PathBuf>, Missing> {
    if found.toolchain.rust_lld().is_some() {
        return Ok(None);
    }
    // An object of a newer LLVM may hold what an older linker does not know: the newest goes first.
    let newest = found.toolchain.llvm_major().unwrap_or_default();
    let versioned = (newest..newest + 3).rev().map(|major| format!("wasm-ld-{major}"));
    let mut names = versioned.chain(["wasm-ld".to_owned()]);
    candidates()
        .iter()
        .find_map(Toolchain::rust_lld)
        .or_else(|| names.find_map(|name| in_path(&name)))
        .map(Some)
        .ok_or(Missing::WasmLinker)
}

/// Where `cargo install` puts programs.
pub fn cargo_bin() -> PathBuf {
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    ["CARGO_INSTALL_ROOT", "CARGO_HOME"]
        .into_iter()
        .find_map(env::var_os)
        .map(PathBuf::from)
        .or_else(home)
        .unwrap_or_else(|| PathBuf::from("/root/.cargo"))
        .join("bin")
}

/// The first file of this name in a folder of PATH.
pub fn in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The distribution's toolchain.
pub fn distribution() -> Toolchain {
    Toolchain { cargo: PathBuf::from("/usr/bin/cargo"), rustc: PathBuf::from("/usr/bin/rustc") }
}

/// The toolchain that the outer cargo belongs to, or else the one in PATH.
pub fn current() -> Toolchain {
    // Cargo names itself to everything that it runs, and its compiler to build scripts. The compiler of
    // `cargo run` is the one beside cargo: a proxy in PATH may stand for another toolchain.
    let cargo = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let beside = cargo.parent().map(|folder| folder.join("rustc")).filter(|rustc| rustc.is_file());
    let rustc = env::var_os("RUSTC").map(PathBuf::from).or(beside);
    Toolchain { cargo, rustc: rustc.unwrap_or_else(|| PathBuf::from("rustc")) }
}

fn candidates() -> Vec<Toolchain> {
    [Some(current()), rustup_nightly(), Some(distribution())].into_iter().flatten().collect()
}

/// Rustup's nightly, where it is installed. Asking for its path installs nothing.
fn rustup_nightly() -> Option<Toolchain> {
    in_path("rustup")?;
    let which = |program: &str| {
        let mut command = Command::new("rustup");
        // The proxy of an outer toolchain would pass on its name.
        command.env_remove("RUSTUP_TOOLCHAIN").env("RUSTUP_AUTO_INSTALL", "0");
        line_of(command.args(["which", "--toolchain", "nightly", program])).map(PathBuf::from)
    };
    Some(Toolchain { cargo: which("cargo")?, rustc: which("rustc")? })
}

fn missing(goal: &Goal, asked: &[Toolchain]) -> Missing {
    let versions: Vec<String> = asked.iter().filter_map(|toolchain| toolchain.version()).collect();
    let asked = match versions.as_slice() {
        [] => "no rustc that runs, which".to_owned(),
        [only] => only.clone(),
        several => format!("none of {}", several.join(", ")),
    };
    Missing::Toolchain { what: goal.what, target: goal.target, library: goal.library, asked }
}

impl Toolchain {
    /// Its compiler's name and version, such as `rustc 1.96.0`.
    pub fn version(&self) -> Option<String> {
        let line = line_of(Command::new(&self.rustc).arg("--version"))?;
        Some(line.split(" (").next().unwrap_or(&line).to_owned())
    }

    /// The major version of the LLVM that its compiler is made with.
    pub fn llvm_major(&self) -> Option<u32> {
        let text = output_of(Command::new(&self.rustc).arg("-vV"))?;
        let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
        version.split('.').next()?.parse().ok()
    }

    fn answers(&self) -> bool {
        let quiet = |program: &Path| {
            Command::new(program)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        quiet(&self.cargo) && quiet(&self.rustc)
    }

    /// Whether the library for the target is there in compiled form.
    fn has_ready_made(&self, goal: &Goal) -> bool {
        let prefix = format!("lib{}-", goal.library);
        self.print("target-libdir", Some(goal.target)).is_some_and(|folder| {
            fs::read_dir(folder).is_ok_and(|entries| {
                entries.flatten().any(|entry| {
                    let name = entry.file_name();
                    let path = Path::new(&name);
                    path.extension() == Some(OsStr::new("rlib"))
                        && name.to_string_lossy().starts_with(&prefix)
                })
            })
        })
    }

    /// Whether the standard library's source is there, so that cargo can build it.
    fn has_source(&self, goal: &Goal) -> bool {
        let Some(sysroot) = self.print("sysroot", None) else {
            return false;
        };
        let library = sysroot.join("lib/rustlib/src/rust/library");
        library.join(goal.library).join("Cargo.toml").is_file()
            // Without the lock file cargo cannot resolve the library's own dependencies.
            && library.join("Cargo.lock").is_file()
    }

    /// The folder of the programs that rustup ships with a toolchain: a linker, tools of LLVM.
    pub fn shipped_tools(&self) -> Option<PathBuf> {
        let libraries = self.print("sysroot", None)?.join("lib/rustlib");
        let folders = fs::read_dir(libraries).ok()?.flatten().map(|entry| entry.path());
        folders.map(|folder| folder.join("bin")).find(|folder| folder.is_dir())
    }

    /// The linker that rustup ships with a toolchain.
    fn rust_lld(&self) -> Option<PathBuf> {
        Some(self.shipped_tools()?.join("rust-lld")).filter(|linker| linker.is_file())
    }

    fn print(&self, what: &str, target: Option<&str>) -> Option<PathBuf> {
        let mut command = Command::new(&self.rustc);
        command.args(["--print", what]);
        if let Some(target) = target {
            command.args(["--target", target]);
        }
        line_of(&mut command).map(PathBuf::from)
    }
}

fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn line_of(command: &mut Command) -> Option<String> {
    let text = output_of(command)?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_toolchain_is_told_in_one_sentence_with_the_way_out() {
        let goal = Goal::kernel(false);
        let message = missing(&goal, &[]).to_string();
        assert!(message.contains("the kernel programs"), "{message}");
        assert!(message.contains("bpfel-unknown-none"), "{message}");
        assert!(message.contains("`cargo xtask setup`"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn the_current_toolchain_has_the_library_of_its_own_machine() {
        let triple = output_of(Command::new(current().rustc).arg("-vV")).unwrap();
        let host = triple.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
        let goal = Goal { target: Box::leak(host.into_boxed_str()), ..Goal::plugin() };
        assert!(current().has_ready_made(&goal));
    }

    #[test]
    fn a_program_that_is_not_there_answers_nothing() {
        let toolchain = Toolchain {
            cargo: PathBuf::from("/nowhere/cargo"),
            rustc: PathBuf::from("/nowhere/rustc"),
        };
        assert!(!toolchain.answers());
        assert!(!toolchain.has_ready_made(&Goal::plugin()));
        assert!(!toolchain.has_source(&Goal::plugin()));
        assert_eq!(toolchain.version(), None);
    }
}
