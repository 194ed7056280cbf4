//! What is built for other machines than the daemon's own, on the way to the daemon: the kernel
//! programs for BPF and the shipped plugins for WebAssembly.
//!
//! Takes the workspace's sources and whatever toolchain this machine has (`toolchain`), gives paths of
//! finished files. Used by the daemon's build script, so everything here must be quick when nothing
//! changed, and must never wait for a lock that the outer cargo holds: nested builds have target
//! folders of their own (`nested`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[cfg(feature = "components")]
mod bindings;
mod nested;
pub mod toolchain;

#[cfg(feature = "components")]
pub use bindings::c_bindings;
use nested::NestedBuild;
use toolchain::{Goal, Missing};

/// Names the folder for nested builds where it should not stand in the target folder. Lets builds with
/// different target folders share the kernel programs and the plugins.
pub const ARTIFACTS_DIR_VARIABLE: &str = "WHODUNIT_ARTIFACTS_DIR";

/// Cargo profile of the kernel programs in the workspace's `Cargo.toml`.
const KERNEL_PROFILE: &str = "kernel";
/// Cargo profile of the plugins in the workspace's `Cargo.toml`.
#[cfg(feature = "components")]
const PLUGIN_PROFILE: &str = "plugin";

/// Why an artifact could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No toolchain on this machine can build it.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A variable that cargo gives to build scripts is not there.
    #[error("{0} is not set: this can only be called from a build script")]
    NotABuildScript(&'static str),
    /// The nested cargo could not be started.
    #[error("{} cannot be started to build {what}: {cause}", cargo.display())]
    Start {
        /// What was to be built.
        what: String,
        /// The cargo that was called.
        cargo: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The nested cargo ended with an error.
    #[error("building {what} failed ({}); the compiler's messages are above", command)]
    Failed {
        /// What was to be built.
        what: String,
        /// The cargo command, without its environment.
        command: String,
    },
    /// A file could not be read or written.
    #[error("{} cannot be {action}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// The contract could not be turned into bindings.
    #[error("no bindings can be made of the contract in {}: {cause}", wit.display())]
    Bindings {
        /// The folder of the contract.
        wit: PathBuf,
        /// What the generator said, with its causes.
        cause: String,
    },
    /// The core module could not be made a component.
    #[error("{} cannot be turned into a component: {cause}", module.display())]
    Component {
        /// The core module.
        module: PathBuf,
        /// What the encoder said, with its causes.
        cause: String,
    },
}

impl BuildError {
    /// The error of a file that cannot be written.
    pub fn writing(path: &Path) -> impl FnOnce(io::Error) -> BuildError {
        let path = path.to_owned();
        move |cause| BuildError::File { path, action: "written", cause }
    }
}

/// The workspace and the place for what is built from it.
#[derive(Clone, Debug)]
pub struct Workshop {
    workspace: PathBuf,
    artifacts: PathBuf,
}

impl Workshop {
    /// The workshop of a build script of a crate one folder below the workspace's root.
    ///
    /// # Errors
    ///
    /// `NotABuildScript` without cargo's variables.
    pub fn from_build_script() -> Result<Workshop, BuildError> {
        let manifest_dir = build_script_path("CARGO_MANIFEST_DIR")?;
        let out_dir = build_script_path("OUT_DIR")?;
        let target = build_script_path("TARGET")?;
        let workspace = manifest_dir.parent().unwrap_or(&manifest_dir).to_owned();
        let artifacts = std::env::var_os(ARTIFACTS_DIR_VARIABLE)
            .map_or_else(|| target_dir_above(&out_dir, &target), PathBuf::from);
        Ok(Workshop { workspace, artifacts })
    }

    /// A workshop for the workspace at `workspace` that builds below `artifacts`.
    pub fn new(workspace: PathBuf, artifacts: PathBuf) -> Workshop {
        Workshop { workspace, artifacts }
    }

    /// The files and folders that the kernel programs are built from.
    pub fn kernel_sources(&self) -> Vec<PathBuf> {
        self.sources(&["host-ebpf"])
    }

    /// The files and folders that the plugin of package `package` is built from.
    pub fn plugin_sources(&self, package: &str) -> Vec<PathBuf> {
        self.sources(&["wit", "plugins/sdk", &format!("plugins/{package}")])
    }

    /// Builds the kernel programs and gives the path of the object: one ELF file with its BTF.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn kernel_object(&self) -> Result<PathBuf, BuildError> {
        let goal = Goal::kernel(target_is_big_endian());
        let found = toolchain::find(&goal)?;
        let linker = toolchain::find_bpf_linker()?;
        let rustflags = [
            format!("-Clinker={}", linker.display()),
            // BTF describes the maps and the functions; the linker makes it from the debug
            // information, which the profile asks for.
            "-Clink-arg=--btf".to_owned(),
            format!("--cfg=bpf_target_arch=\"{}\"", target_arch()),
        ];
        let target_dir = NestedBuild {
            what: "the kernel programs",
            found: &found,
            workspace: &self.workspace,
            target_dir: self.artifacts.join("kernel"),
            target: goal.target,
            profile: KERNEL_PROFILE,
            rustflags: &rustflags,
            subcommand: &[
                "build",
                "--package=whodunit-ebpf",
                "--bin=programs",
                "--features=programs",
            ],
        }
        .run()?;
        Ok(target_dir.join("programs"))
    }

    /// Builds the plugin of package `package` and gives the path of its component.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    #[cfg(feature = "components")]
    pub fn plugin_component(&self, package: &str) -> Result<PathBuf, BuildError> {
        let goal = Goal::plugin();
        let found = toolchain::find(&goal)?;
        let linker = toolchain::find_wasm_linker(&found)?;
        let rustflags: Vec<String> =
            linker.iter().map(|path| format!("-Clinker={}", path.display())).collect();
        let built = NestedBuild {
            what: &format!("the plugin {package}"),
            found: &found,
            workspace: &self.workspace,
            target_dir: self.artifacts.join("plugins"),
            target: goal.target,
            profile: PLUGIN_PROFILE,
            rustflags: &rustflags,
            subcommand: &["rustc", &format!("--package={package}"), "--lib", "--crate-type=cdylib"],
        }
        .run()?;
        let module = built.join(format!("{}.wasm", package.replace('-', "_")));
        let component = built.join(format!("{package}.component.wasm"));
        let bytes = read(&module)?;
        let encoded = encode(&bytes)
            .map_err(|cause| BuildError::Component { module: module.clone(), cause })?;
        write_if_new(&component, &encoded)?;
        Ok(component)
    }

    /// Where the contract is.
    pub fn contract(&self) -> PathBuf {
        self.workspace.join("wit")
    }

    /// Where the sources of the SDK for Rust are.
    pub fn sdk(&self) -> PathBuf {
        self.workspace.join("plugins/sdk/src")
    }

    fn sources(&self, folders: &[&str]) -> Vec<PathBuf> {
        let shared = ["Cargo.toml", "Cargo.lock", ".cargo/config.toml"];
        shared.iter().chain(folders).map(|name| self.workspace.join(name)).collect()
    }
}

/// Copies `from` to `to`.
///
/// # Errors
///
/// `File` with the path and what the system said.
pub fn copy(from: &Path, to: &Path) -> Result<(), BuildError> {
    write_if_new(to, &read(from)?)
}

#[cfg(feature = "components")]
fn encode(module: &[u8]) -> Result<Vec<u8>, String> {
    wit_component::ComponentEncoder::default()
        .module(module)
        .and_then(|encoder| encoder.validate(true).encode())
        // The alternate form has the whole chain of causes on one line.
        .map_err(|cause| format!("{cause:#}"))
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    fs::read(path).map_err(|cause| BuildError::File {
        path: path.to_owned(),
        action: "read",
        cause,
    })
}

/// Leaves a file with the same bytes alone, so that nothing downstream looks changed.
fn write_if_new(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(path, bytes).map_err(BuildError::writing(path))
}

fn build_script_path(variable: &'static str) -> Result<PathBuf, BuildError> {
    std::env::var_os(variable).map(PathBuf::from).ok_or(BuildError::NotABuildScript(variable))
}

/// The target folder that `out_dir` lies in: `<target>/[<triple>/]<profile>/build/<package>/out`.
/// `CARGO_TARGET_DIR` cannot be asked: it may be relative to a folder that a build script never learns.
fn target_dir_above(out_dir: &Path, target: &Path) -> PathBuf {
    let profile_dir = out_dir
        .ancestors()
        .find(|folder| folder.file_name().is_some_and(|name| name == "build"))
        .and_then(Path::parent);
    match profile_dir.and_then(Path::parent) {
        Some(above) if above.ends_with(target) => above.parent().unwrap_or(above).to_owned(),
        Some(above) => above.to_owned(),
        None => out_dir.to_owned(),
    }
}

/// The architecture of the daemon, as cargo names it, where a build script is running.
fn target_arch() -> String {
    std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| std::env::consts::ARCH.to_owned())
}

fn target_is_big_endian() -> bool {
    std::env::var("CARGO_CFG_TARGET_ENDIAN")
        .map_or(cfg!(target_endian = "big"), |endian| endian == "big")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(out_dir: &str, expected: &str) {
        let target = Path::new("x86_64-unknown-linux-gnu");
        assert_eq!(target_dir_above(Path::new(out_dir), target), Path::new(expected));
    }

    #[test]
    fn the_target_folder_is_found_with_and_without_a_triple() {
        check("/w/target/x86_64-unknown-linux-gnu/release/build/whodunit-1f/out", "/w/target");
        check("/w/target/release/build/whodunit-1f/out", "/w/target");
    }

    #[test]
    fn a_folder_named_build_above_the_target_folder_does_not_mislead() {
        check("/build/t/x86_64-unknown-linux-gnu/debug/build/whodunit-1f/out", "/build/t");
    }

    #[test]
    fn a_file_with_the_same_bytes_is_left_alone() {
        let folder =
            std::env::temp_dir().join(format!("whodunit-artifacts-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("file");
        write_if_new(&file, b"one").unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
        write_if_new(&file, b"one").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), long_ago);
        write_if_new(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        fs::remove_dir_all(&folder).unwrap();
    }
}
