//! Puts the kernel programs and the shipped plugins where the daemon includes them, and tells it what
//! it was built with.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fmt, fs};

use whodunit_artifacts::{ARTIFACTS_DIR_VARIABLE, BuildError, Workshop, c_bindings, copy};

/// The plugins that are shipped inside the binary, by package.
const BUILTIN_PLUGINS: [&str; 8] = [
    "report-json",
    "death-explainer",
    "event-log",
    "jsonl",
    "otlp",
    "otlp-files",
    "apparmor-profile",
    "path-filter",
];

/// The worlds of the contract that there are templates for in C.
const WORLDS: [&str; 3] = ["filter-plugin", "reporter-plugin", "explainer-plugin"];

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
    embed_for_projects(&workshop, &out_dir)
}

/// Writes `embedded.rs`: what `whodunit plugin new` puts into a project.
fn embed_for_projects(workshop: &Workshop, out_dir: &Path) -> Result<(), BuildError> {
    let folders = [workshop.contract(), workshop.sdk()];
    rerun_if_changed(&folders);
    let [wit, sdk] = folders.map(|folder| included(&folder, &listed(&folder), "include_str!"));
    let text = format!(
        "pub(super) const WIT: &[(&str, &str)] = &[{wit}];\n\
         pub(super) const SDK: &[(&str, &str)] = &[{sdk}];\n\
         pub(super) const C_BINDINGS: &[(&str, &str, &[u8])] = &[{}];\n",
        embed_bindings(&workshop.contract(), &out_dir.join("c"))?
    );
    let path = out_dir.join("embedded.rs");
    fs::write(&path, text).map_err(BuildError::writing(&path))
}

/// Writes the bindings of each world in C, and gives them as items of an array of Rust, with the world first.
fn embed_bindings(contract: &Path, folder: &Path) -> Result<String, BuildError> {
    let mut items = String::new();
    for world in WORLDS {
        let folder = folder.join(world);
        fs::create_dir_all(&folder).map_err(BuildError::writing(&folder))?;
        for (name, bytes) in c_bindings(contract, world)? {
            let path = folder.join(&name);
            fs::write(&path, bytes).map_err(BuildError::writing(&path))?;
            items += &format!("({world:?}, {name:?}, include_bytes!({path:?})), ");
        }
    }
    Ok(items)
}

/// The files in a folder and in the folders inside it, in the order of their paths.
fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            files.extend(listed(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Files by their paths in `folder`, as items of an array of Rust.
fn included(folder: &Path, files: &[PathBuf], by: &str) -> String {
    let name = |path: &Path| path.strip_prefix(folder).unwrap_or(path).display().to_string();
    files.iter().map(|path| format!("({:?}, {by}({path:?})), ", name(path))).collect()
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
