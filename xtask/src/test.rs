//! `cargo xtask test`: every check and test of the project, one summed last line.
//!
//! All cargo steps select the whole workspace and the release profile, because cargo builds a
//! dependency once for each set of features that a selection asks for.

use std::process::{Command, ExitCode, Stdio};

use crate::invariants;
use crate::setup::{self, Purpose, SetupError};
use crate::steps::Steps;
use crate::vm;
use crate::workspace::{CargoError, INTEGRATION_TESTS, Workspace, daemon_of};

/// Runs everything. The status says whether anything failed.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode, SetupError> {
    let mut steps = Steps::default();
    // What cannot be installed shows in the steps that need it; the others still run.
    steps.own_check("setup", || setup::run(&Purpose::TESTED));

    // Quick ones first: they need no build.
    steps.check("format", workspace.cargo().args(["fmt", "--all", "--check"]));
    steps.claims("repository", || invariants::claims(&workspace.root));
    check_dependencies(workspace, &mut steps);

    let built = steps.own_check("build", || {
        let arguments = ["build", "--release", "--workspace", "--all-targets"];
        let built = workspace.build(&arguments, &[])?;
        let daemon = daemon_of(&built).ok_or(CargoError::Unexpected {
            command: arguments.join(" "),
            missing: "executable named whodunit",
        })?;
        Ok::<_, CargoError>((daemon, built))
    });
    let mut unit_tests = cargo(workspace, &["test", "--no-fail-fast"]);
    steps.tests("unit tests", unit_tests.args(&workspace.quick_tests));
    steps.tests("documentation tests", &mut cargo(workspace, &["test", "--doc", "--no-fail-fast"]));
    match &built {
        Some((daemon, built)) => {
            let mut command = cargo(workspace, &["test", "--test", INTEGRATION_TESTS]);
            steps.tests("integration tests", command.env("WHODUNIT_BIN", daemon));
            vm::test(workspace, built, &mut steps);
        }
        None => steps.skip("integration tests", "there is no daemon to test"),
    }

    let mut clippy = cargo(workspace, &["clippy", "--all-targets"]);
    steps.check("clippy", clippy.args(["--", "--deny=warnings"]));
    // The examples, of which there are none, make the features those of clippy's run.
    let mut documentation = cargo(workspace, &["doc", "--no-deps", "--lib", "--examples"]);
    steps.check("documentation", documentation.env("RUSTDOCFLAGS", "--deny=warnings"));
    Ok(if steps.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Cargo with what every step has in common.
fn cargo(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = workspace.cargo();
    command.args(arguments).args(["--release", "--workspace", "--locked"]);
    command
}

/// Licences, duplicate and banned crates, sources; advisories where their database can be had.
fn check_dependencies(workspace: &Workspace, steps: &mut Steps) {
    for check in ["licenses", "bans", "sources"] {
        let name = format!("dependencies: {check}");
        steps.check(&name, deny(workspace).args(["check", "--hide-inclusion-graph", check]));
    }
    let name = "dependencies: advisories";
    let fetched = deny(workspace)
        .args(["fetch", "db"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if fetched {
        let check = ["check", "--disable-fetch", "--hide-inclusion-graph", "advisories"];
        steps.check(name, deny(workspace).args(check));
    } else {
        steps.skip(name, "the advisory database cannot be fetched from this machine");
    }
}

fn deny(workspace: &Workspace) -> Command {
    workspace.tool("cargo-deny")
}
