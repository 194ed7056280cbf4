//! Puts the kernel programs and the shipped plugins where the daemon includes them, and tells it what
//! it was built with.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fmt};

use whodunit_artifacts::{ARTIFACTS_DIR_VARIABLE, BuildError, Workshop, copy};

/// The plugins that are shipped inside the binary, by package.
const BUILTIN_PLUGINS: [&str; 3] = ["report-json", "death-explainer", "event-log"];

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            // Cargo shows what the nested builds wrote only for a script that fails.
            ExitCode::FAILURE
        }
    }
}

/// Fills `OUT_DIR` with `programs` and one `<plugin>.wasm` for each shipped plugin.
fn embed() -> Result<(), BuildError> {
    say("rerun-if-env-changed", ARTIFACTS_DIR_VARIABLE);
    say("rerun-if-changed", "build.rs");
    say("rustc-env", format_args!("WHODUNIT_RUSTC={}", rustc_version()));
    say("rustc-env", format_args!("WHODUNIT_TARGET={}", variable("TARGET")));
    let out_dir = PathBuf::from(variable("OUT_DIR"));
    let workshop = Workshop::from_build_script()?;

    rerun_if_changed(&workshop.kernel_sources());
    copy(&workshop.kernel_object()?, &out_dir.join("programs"))?;
    for plugin in BUILTIN_PLUGINS {
        rerun_if_changed(&workshop.plugin_sources(plugin));
        copy(&workshop.plugin_component(plugin)?, &out_dir.join(format!("{plugin}.wasm")))?;
    }
    Ok(())
}

fn rerun_if_changed(sources: &[PathBuf]) {
    for source in sources.iter().map(PathBuf::as_path).map(Path::display) {
        say("rerun-if-changed", source);
    }
}

fn rustc_version() -> String {
    let output = Command::new(variable("RUSTC")).arg("--version").output();
    let version = output.ok().filter(|output| output.status.success());
    version.map_or_else(
        || "an unknown rustc".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// A variable that cargo gives to every build script.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn say(instruction: &str, value: impl fmt::Display) {
    println!("cargo::{instruction}={value}");
}
