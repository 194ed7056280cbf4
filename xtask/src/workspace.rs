//! This workspace: where it is, where it is built, and how cargo is called for it.

use std::env;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;

use crate::setup;

/// Why a cargo command did not give what was asked of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CargoError {
    /// Cargo could not be started.
    #[error("cargo cannot be started: {0}")]
    Start(io::Error),
    /// Cargo ended with an error.
    #[error("`cargo {command}` failed ({status}); its messages are above")]
    Failed {
        /// Its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// Cargo said something that nobody here understands.
    #[error("`cargo {command}` gave no {missing}; this cargo may be too new for xtask")]
    Unexpected {
        /// Its arguments.
        command: String,
        /// What was looked for in its output.
        missing: &'static str,
    },
}

/// The workspace that this program was built from.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    /// Its root folder.
    pub(crate) root: PathBuf,
    /// Where cargo builds it.
    pub(crate) target_dir: PathBuf,
    /// Selects every test that needs no daemon: unit tests, and test targets of single crates.
    pub(crate) quick_tests: Vec<String>,
}

/// The test target of the integration tests, which need the daemon's binary.
pub(crate) const INTEGRATION_TESTS: &str = "containers";

/// An executable that cargo built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Built {
    /// Name of the cargo target: `whodunit`, `containers`, ...
    pub(crate) target: String,
    /// Whether it runs tests.
    pub(crate) is_test: bool,
    /// Where it is.
    pub(crate) path: PathBuf,
}

impl Workspace {
    /// Asks cargo for the workspace of the current folder, or else of this program's sources.
    pub(crate) fn find() -> Result<Workspace, CargoError> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let arguments = ["metadata", "--no-deps", "--format-version=1"];
        let output = cargo_in(&manifest)
            .args(arguments)
            .stderr(Stdio::inherit())
            .output()
            .map_err(CargoError::Start)?;
        let command = arguments.join(" ");
        if !output.status.success() {
            return Err(CargoError::Failed { command, status: output.status });
        }
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let folder = |key: &str| metadata[key].as_str().map(PathBuf::from);
        match (folder("workspace_root"), folder("target_directory")) {
            (Some(root), Some(target_dir)) => {
                Ok(Workspace { root, target_dir, quick_tests: quick_tests(&metadata) })
            }
            _ => Err(CargoError::Unexpected { command, missing: "workspace_root" }),
        }
    }

    /// What cargo says of everything that this workspace depends on, built for that target.
    pub(crate) fn metadata(&self, target: &str) -> Result<Value, CargoError> {
        let platform = format!("--filter-platform={target}");
        // The kernel programs are behind a feature.
        let features = "--features=whodunit-ebpf/programs";
        let arguments = ["metadata", "--format-version=1", "--locked", &platform, features];
        let mut cargo = self.cargo();
        let output = cargo.args(arguments).stderr(Stdio::inherit()).output();
        let output = output.map_err(CargoError::Start)?;
        let command = arguments.join(" ");
        if !output.status.success() {
            return Err(CargoError::Failed { command, status: output.status });
        }
        let missing = CargoError::Unexpected { command, missing: "JSON" };
        serde_json::from_slice(&output.stdout).map_err(|_| missing)
    }

    /// Cargo, to be run at the root of the workspace.
    pub(crate) fn cargo(&self) -> Command {
        cargo_in(&self.root)
    }

    /// A program that `cargo install` put somewhere, to be run at the root of the workspace.
    pub(crate) fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(setup::installed(name).unwrap_or_else(|| name.into()));
        command.current_dir(&self.root).stdin(Stdio::null());
        command
    }

    /// Runs `cargo build` or `cargo test --no-run` with these arguments, shows what cargo shows, and
    /// gives the executables.
    pub(crate) fn build(
        &self,
        arguments: &[&str],
        environment: &[(&str, &Path)],
    ) -> Result<Vec<Built>, CargoError> {
        let mut child = self
            .cargo()
            .args(arguments)
            .args(["--locked", "--message-format=json-render-diagnostics"])
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(CargoError::Start)?;
        let messages = child.stdout.take().map(BufReader::new);
        let built = messages
            .into_iter()
            .flat_map(BufRead::lines)
            .map_while(Result::ok)
            .filter_map(|line| executable_of(&line))
            .collect();
        let status = child.wait().map_err(CargoError::Start)?;
        if status.success() {
            Ok(built)
        } else {
            Err(CargoError::Failed { command: arguments.join(" "), status })
        }
    }

    /// Builds the daemon for release and gives its binary.
    pub(crate) fn build_daemon(&self) -> Result<PathBuf, CargoError> {
        // Cargo builds a dependency once for each set of features that a selection asks for. The whole
        // workspace with its examples, of which there are none, is the selection that has the features
        // of `cargo xtask test`: what one of the two has built is fresh for the other.
        let arguments = ["build", "--release", "--workspace", "--bin=whodunit", "--examples"];
        let built = self.build(&arguments, &[])?;
        daemon_of(&built).ok_or(CargoError::Unexpected {
            command: arguments.join(" "),
            missing: "executable named whodunit",
        })
    }
}

/// The daemon among what was built.
pub(crate) fn daemon_of(built: &[Built]) -> Option<PathBuf> {
    built
        .iter()
        .find(|executable| executable.target == "whodunit" && !executable.is_test)
        .map(|executable| executable.path.clone())
}

/// The cargo that runs this program, free of what it says about this program.
pub(crate) fn cargo_in(folder: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(folder).stdin(Stdio::null());
    let about_this_program = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        // `cargo run` adds the folders of this program's libraries.
        if text == "LD_LIBRARY_PATH" || about_this_program.iter().any(|it| text.starts_with(it)) {
            command.env_remove(&name);
        }
    }
    command
}

/// The flags that select every test but the integration tests. Named one by one, because leaving a
/// package out would change the features that the others are built with.
fn quick_tests(metadata: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let targets = list(&metadata["packages"])
        .into_iter()
        .flat_map(|package| list(&package["targets"]))
        .filter(|target| list(&target["kind"]).iter().any(|kind| kind == "test"))
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .filter(|name| name != INTEGRATION_TESTS)
        .map(|name| format!("--test={name}"));
    ["--lib", "--bins"].map(str::to_owned).into_iter().chain(targets).collect()
}

/// The executable of one line of cargo's messages, if it is about one.
fn executable_of(line: &str) -> Option<Built> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    Some(Built {
        target: message["target"]["name"].as_str()?.to_owned(),
        is_test: message["profile"]["test"].as_bool()?,
        path: message["executable"].as_str()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<(&str, bool)>) {
        let built = executable_of(line);
        let found = built.as_ref().map(|built| (built.target.as_str(), built.is_test));
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn executables_are_found_among_the_messages() {
        check(
            r#"{"reason":"compiler-artifact","target":{"name":"whodunit"},
               "profile":{"test":false},"executable":"/t/whodunit"}"#,
            Some(("whodunit", false)),
        );
        check(
            r#"{"reason":"compiler-artifact","target":{"name":"serde"},
               "profile":{"test":false},"executable":null}"#,
            None,
        );
        check(r#"{"reason":"build-finished","success":true}"#, None);
        check("no message at all", None);
    }

    #[test]
    fn test_targets_of_every_package_are_quick_but_the_integration_tests() {
        let metadata = serde_json::json!({ "packages": [
            { "targets": [
                { "name": "report-json", "kind": ["lib"] },
                { "name": "report", "kind": ["test"] },
            ] },
            { "targets": [{ "name": INTEGRATION_TESTS, "kind": ["test"] }] },
        ] });
        assert_eq!(quick_tests(&metadata), ["--lib", "--bins", "--test=report"]);
    }

    #[test]
    fn the_unit_tests_of_the_daemon_are_not_the_daemon() {
        let built =
            |is_test, path: &str| Built { target: "whodunit".into(), is_test, path: path.into() };
        let all = [built(true, "/t/deps/whodunit-1"), built(false, "/t/whodunit")];
        assert_eq!(daemon_of(&all), Some("/t/whodunit".into()));
        assert_eq!(daemon_of(&all[..1]), None);
    }
}
