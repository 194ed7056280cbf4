//! `cargo xtask coverage`: which lines of the daemon and the plugins its tests reach.
//!
//! This program stands between cargo and the compiler (`RUSTC_WORKSPACE_WRAPPER`) and adds the
//! instrumentation to the crates that are measured, so that no dependency is built a second time.
//! Daemons that are killed leave no profile; what only they reach does not count.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::setup::{self, Purpose, SetupError};
use crate::steps::Steps;
use crate::workspace::{CargoError, INTEGRATION_TESTS, Workspace, daemon_of};

/// Tells this program that cargo calls it as a compiler, and where the workspace is.
const ROOT_VARIABLE: &str = "WHODUNIT_COVERAGE_ROOT";

/// Folders below the root whose crates are measured.
const MEASURED: [&str; 2] = ["host", "plugins"];

/// Why there is no number.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CoverageError {
    /// Something is missing and cannot be installed.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Cargo failed.
    #[error(transparent)]
    Cargo(#[from] CargoError),
    /// A tool of LLVM is not there.
    #[error(
        "there is no {0} of the compiler's LLVM version; `cargo xtask setup coverage` installs it"
    )]
    NoTool(&'static str),
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
    /// A tool could not be started.
    #[error("{} cannot be started: {cause}", tool.display())]
    Start {
        /// The tool.
        tool: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A tool failed.
    #[error("{} failed ({status}); its messages are above", tool.display())]
    Failed {
        /// The tool.
        tool: PathBuf,
        /// How.
        status: ExitStatus,
    },
    /// No line was measured.
    #[error("no line of {} was measured: the tests left no profile", MEASURED.join(" and "))]
    Nothing,
}

/// Lines of one file, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lines {
    count: u64,
    covered: u64,
}

/// Where cargo calls this program as the compiler: compiles, and gives the status to end with.
pub(crate) fn run_as_compiler() -> Option<ExitCode> {
    let root = env::var_os(ROOT_VARIABLE)?;
    let mut arguments = env::args_os().skip(1);
    // Without an argument nobody called it as a compiler.
    let compiler = arguments.next()?;
    let arguments: Vec<OsString> = arguments.collect();
    let mut command = Command::new(&compiler);
    command.args(&arguments);
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    if is_measured(Path::new(&root), &manifest, &arguments) {
        command.arg("-Cinstrument-coverage");
    }
    let cause = command.exec();
    eprintln!("error: {} cannot be started: {cause}", Path::new(&compiler).display());
    Some(ExitCode::FAILURE)
}

/// Whether the crate of this compiler call is one of those that count.
fn is_measured(root: &Path, manifest: &Path, arguments: &[OsString]) -> bool {
    let name = arguments.iter().skip_while(|it| *it != "--crate-name").nth(1);
    let is_build_script = name.is_some_and(|name| name == OsStr::new("build_script_build"));
    let in_measured = MEASURED.iter().any(|folder| manifest.starts_with(root.join(folder)));
    name.is_some() && !is_build_script && in_measured
}

/// Runs the tests with instrumentation and prints a table; the percentage stands alone on the last line.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode, CoverageError> {
    setup::run(&[Purpose::Build, Purpose::Containers, Purpose::Coverage])?;
    let profdata =
        setup::llvm_tool("llvm-profdata").ok_or(CoverageError::NoTool("llvm-profdata"))?;
    let cov = setup::llvm_tool("llvm-cov").ok_or(CoverageError::NoTool("llvm-cov"))?;
    let folder = workspace.target_dir.join("coverage");
    fs::create_dir_all(&folder).map_err(file_error(&folder, "made"))?;
    let profiles = folder_for_everybody()?;
    let compiler = copy_of_this_program(&folder)?;
    // One profile a process, so that parallel daemons do not write into each other's.
    let profile_name = profiles.path().join("%p-%m.profraw");
    let environment: [(&str, &Path); 3] = [
        ("RUSTC_WORKSPACE_WRAPPER", &compiler),
        (ROOT_VARIABLE, &workspace.root),
        ("LLVM_PROFILE_FILE", &profile_name),
    ];

    // The same selection as in `cargo xtask test`, so that its dependencies are used.
    let build = ["build", "--release", "--workspace", "--all-targets"];
    let built = workspace.build(&build, &environment)?;
    let daemon = daemon_of(&built).ok_or_else(|| CargoError::Unexpected {
        command: build.join(" "),
        missing: "executable named whodunit",
    })?;
    let mut steps = Steps::default();
    let mut tests = |name, selection: &[String]| {
        let mut cargo = workspace.cargo();
        cargo.args(["test", "--release", "--workspace", "--locked", "--no-fail-fast"]);
        cargo.args(selection).envs(environment).env("WHODUNIT_BIN", &daemon);
        steps.tests(name, &mut cargo);
    };
    tests("unit tests", &workspace.quick_tests);
    tests("integration tests", &[format!("--test={INTEGRATION_TESTS}")]);
    let all_passed = steps.finish();

    let merged = merge(&profdata, profiles.path(), &folder)?;
    let objects: Vec<&Path> = built.iter().map(|built| built.path.as_path()).collect();
    let files = measured_lines(&export(&cov, &merged, &objects)?, &workspace.root);
    let sum = files.values().fold(Lines::default(), |sum, lines| Lines {
        count: sum.count + lines.count,
        covered: sum.covered + lines.covered,
    });
    if sum.count == 0 {
        return Err(CoverageError::Nothing);
    }
    println!("\n{:>7} {:>7} {:>7}  FILE", "LINES", "COVERED", "%");
    for (path, lines) in &files {
        println!("{:>7} {:>7} {:>7.2}  {path}", lines.count, lines.covered, lines.percent());
    }
    println!("{:>7} {:>7} {:>7.2}  all", sum.count, sum.covered, sum.percent());
    println!("{:.2}", sum.percent());
    Ok(if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Lines {
    fn percent(self) -> f64 {
        100.0 * self.covered as f64 / self.count.max(1) as f64
    }
}

/// A folder that goes away by itself. Daemons that run as another user leave their profile there too.
fn folder_for_everybody() -> Result<TempDir, CoverageError> {
    let folder = tempfile::Builder::new()
        .prefix("whodunit-coverage-")
        .tempdir()
        .map_err(file_error(&env::temp_dir(), "written"))?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o1777))
        .map_err(file_error(folder.path(), "opened to everybody"))?;
    Ok(folder)
}

/// Cargo may build this program anew while it is the compiler: a copy stays what it is.
fn copy_of_this_program(folder: &Path) -> Result<PathBuf, CoverageError> {
    let copy = folder.join("compiler");
    let this = env::current_exe().map_err(file_error(Path::new("/proc/self/exe"), "read"))?;
    let bytes = fs::read(&this).map_err(file_error(&this, "read"))?;
    // Cargo asks a changed compiler for its version again.
    if fs::read(&copy).ok().as_ref() != Some(&bytes) {
        fs::copy(&this, &copy).map_err(file_error(&copy, "written"))?;
    }
    Ok(copy)
}

fn merge(profdata: &Path, profiles: &Path, folder: &Path) -> Result<PathBuf, CoverageError> {
    let merged = folder.join("merged.profdata");
    let mut command = Command::new(profdata);
    // A daemon that is killed while it writes its profile leaves half of one.
    command.args(["merge", "--sparse", "--failure-mode=all", "-o"]).arg(&merged).arg(profiles);
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|cause| CoverageError::Start { tool: profdata.to_owned(), cause })?;
    if status.success() {
        Ok(merged)
    } else {
        Err(CoverageError::Failed { tool: profdata.to_owned(), status })
    }
}

fn export(cov: &Path, merged: &Path, objects: &[&Path]) -> Result<Value, CoverageError> {
    let mut command = Command::new(cov);
    command.args(["export", "--summary-only", "--instr-profile"]).arg(merged);
    for object in objects {
        command.arg("--object").arg(object);
    }
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|cause| CoverageError::Start { tool: cov.to_owned(), cause })?;
    if !output.status.success() {
        return Err(CoverageError::Failed { tool: cov.to_owned(), status: output.status });
    }
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// The lines of each measured file, by its path below the root.
fn measured_lines(export: &Value, root: &Path) -> BTreeMap<String, Lines> {
    let files = export["data"][0]["files"].as_array().map(Vec::as_slice).unwrap_or_default();
    files
        .iter()
        .filter_map(|file| {
            let path = Path::new(file["filename"].as_str()?).strip_prefix(root).ok()?;
            let measured = MEASURED.iter().any(|folder| path.starts_with(folder)) && !is_test(path);
            let lines = &file["summary"]["lines"];
            let lines =
                Lines { count: lines["count"].as_u64()?, covered: lines["covered"].as_u64()? };
            measured.then(|| (path.display().to_string(), lines))
        })
        .collect()
}

/// Files that hold tests and nothing else: tests reach themselves.
fn is_test(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs")
        || path.components().any(|part| part.as_os_str() == "tests")
}

fn file_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> CoverageError {
    let path = path.to_owned();
    move |cause| CoverageError::File { path, action, cause }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_crates_that_count_are_instrumented() {
        let check = |manifest: &str, arguments: &[&str], expected: bool| {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            let found = is_measured(Path::new("/w"), Path::new(manifest), &arguments);
            assert_eq!(found, expected, "{manifest} {arguments:?}");
        };
        check("/w/host", &["--crate-name", "whodunit"], true);
        check("/w/plugins/sdk", &["--crate-name", "whodunit_sdk"], true);
        check("/w/host", &["--crate-name", "build_script_build"], false);
        check("/w/host-ebpf", &["--crate-name", "whodunit_ebpf"], false);
        check("/w/tests", &["--crate-name", "containers"], false);
        check("", &["--print", "cfg"], false);
    }

    #[test]
    fn only_the_files_that_count_are_summed() {
        let file = |name: &str, count: u64, covered: u64| {
            json!({
                "filename": name, "summary": { "lines": { "count": count, "covered": covered } },
            })
        };
        let export = json!({ "data": [{ "files": [
            file("/w/host/src/lib.rs", 10, 8),
            file("/w/plugins/sdk/src/lib.rs", 4, 4),
            file("/w/host/src/config/tests.rs", 7, 7),
            file("/w/plugins/report-json/tests/report.rs", 7, 7),
            file("/w/tests/src/lib.rs", 7, 0),
            file("/registry/serde/src/lib.rs", 7, 0),
        ] }] });
        let lines = measured_lines(&export, Path::new("/w"));
        let expected = [
            ("host/src/lib.rs".to_owned(), Lines { count: 10, covered: 8 }),
            ("plugins/sdk/src/lib.rs".to_owned(), Lines { count: 4, covered: 4 }),
        ];
        assert_eq!(lines, BTreeMap::from(expected));
        assert_eq!(lines["host/src/lib.rs"].percent(), 80.0);
        assert_eq!(measured_lines(&Value::Null, Path::new("/w")), BTreeMap::new());
    }
}
