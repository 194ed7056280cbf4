//! A cargo run inside a cargo run.
//!
//! Owns what a nested build may inherit: its own target folder, its own flags, and no variable by which
//! the outer build would change it. Keeps the outer cargo's job server, so that both together use as
//! many cores as the outer one was given.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::BuildError;
use crate::toolchain::Found;

/// One nested build.
pub(crate) struct NestedBuild<'a> {
    /// What is built, for messages.
    pub(crate) what: &'a str,
    /// Who builds.
    pub(crate) found: &'a Found,
    /// Root of the workspace.
    pub(crate) workspace: &'a Path,
    /// Where it is built. Its own: a folder shared with the outer cargo would be locked.
    pub(crate) target_dir: PathBuf,
    /// For which target.
    pub(crate) target: &'static str,
    /// With which profile of the workspace.
    pub(crate) profile: &'static str,
    /// Flags for the compiler, in place of all others.
    pub(crate) rustflags: &'a [String],
    /// The cargo command with its package.
    pub(crate) subcommand: &'a [&'a str],
}

impl NestedBuild<'_> {
    /// Runs it and gives the folder of the finished files.
    pub(crate) fn run(self) -> Result<PathBuf, BuildError> {
        let Found { toolchain, build_std, bootstrap } = self.found;
        let mut command = Command::new(&toolchain.cargo);
        command
            .args(self.subcommand)
            .args(["--target", self.target, "--profile", self.profile])
            // The outer cargo has just settled the lock file: a nested build that wants another one is
            // wrong, and would change a file under the outer one's feet.
            .arg("--locked")
            .args(build_std)
            .arg("--target-dir")
            .arg(&self.target_dir)
            .current_dir(self.workspace)
            .stdin(Stdio::null())
            // Cargo reads what a build script prints.
            .stdout(Stdio::null());
        for (name, _) in env::vars_os().filter(|(name, _)| !is_inherited(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command
            // Given even when empty: the flags of `.cargo/config.toml` are the daemon's.
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags.join("\x1f"))
            .env("RUSTC", &toolchain.rustc)
            .env("PATH", path_with_first(toolchain.rustc.parent()));
        if *bootstrap {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        let start_error = |cause| BuildError::Start {
            what: self.what.to_owned(),
            cargo: toolchain.cargo.clone(),
            cause,
        };
        if !command.status().map_err(start_error)?.success() {
            return Err(BuildError::Failed {
                what: self.what.to_owned(),
                command: words(&command),
            });
        }
        Ok(self.target_dir.join(self.target).join(self.profile))
    }
}

/// Whether a nested cargo may see this variable.
fn is_inherited(name: &str) -> bool {
    const KEPT: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_HTTP_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_BUILD_JOBS",
    ];
    // Cargo adds the outer compiler's libraries to the last one, where another compiler might take
    // them for its own. The others are what cargo tells a build script.
    const DROPPED: [&str; 9] = [
        "OUT_DIR",
        "TARGET",
        "HOST",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "NUM_JOBS",
        "LLVM_PROFILE_FILE",
        "LD_LIBRARY_PATH",
    ];
    if name.starts_with("CARGO") {
        return KEPT.iter().any(|kept| name.starts_with(kept));
    }
    let compiler = name.starts_with("RUSTC") || name.starts_with("RUSTDOC") || name == "RUSTFLAGS";
    !compiler && name != "RUSTUP_TOOLCHAIN" && !DROPPED.contains(&name)
}

fn path_with_first(folder: Option<&Path>) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let folder = folder.filter(|folder| folder.is_absolute()).map(Path::to_owned);
    let folders = folder.into_iter().chain(env::split_paths(&path));
    // Only a folder with a colon in its name cannot be joined; PATH cannot hold such a folder anyway.
    env::join_paths(folders).unwrap_or(path)
}

fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_change_a_nested_build_is_not_inherited() {
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_BOOTSTRAP",
            "RUSTDOCFLAGS",
            "RUSTUP_TOOLCHAIN",
            "CARGO",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_INCREMENTAL",
            "CARGO_CFG_TARGET_ARCH",
            "CARGO_FEATURE_X",
            "LLVM_PROFILE_FILE",
            "LD_LIBRARY_PATH",
            "TARGET",
        ] {
            assert!(!is_inherited(name), "{name}");
        }
    }

    #[test]
    fn what_reaches_the_registry_and_the_job_server_is_inherited() {
        for name in [
            "PATH",
            "HOME",
            "CARGO_HOME",
            "CARGO_MAKEFLAGS",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_CAINFO",
            "CARGO_REGISTRIES_MINE_TOKEN",
            "CARGO_REGISTRY_DEFAULT",
            "RUSTUP_HOME",
            "HTTPS_PROXY",
        ] {
            assert!(is_inherited(name), "{name}");
        }
    }
}
