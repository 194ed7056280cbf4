//! Plugins in every language that `whodunit plugin new` knows: made, built, inspected, run on a recording,
//! and loaded into a daemon that watches a real container.

use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use whodunit_artifacts::toolchain::{self, Goal};
use whodunit_containers::condition::{PATIENCE, wait_for};
use whodunit_containers::daemon::binary;
use whodunit_containers::{DaemonConfig, Pod};

use crate::discovery::{let_work, worker};
use crate::recording::said;
use crate::report::{expect, expect_eq, last_report, repository};
use crate::swaps::reload;
use crate::{Outcome, machine, needing};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        needing("languages::a_new_plugin_in_rust_builds_and_counts", lacks_rust, in_rust),
        needing("languages::a_new_plugin_in_c_builds_and_counts", lacks_c, in_c),
        needing("languages::a_new_plugin_in_javascript_builds_and_counts", lacks_js, in_js),
        needing("languages::a_new_plugin_in_python_builds_and_counts", lacks_python, in_python),
        needing("languages::a_new_filter_in_rust_builds_and_drops", lacks_rust, filter_in_rust),
        needing("languages::a_new_explainer_in_rust_builds", lacks_rust, explainer_in_rust),
    ]
}

/// Where `cargo xtask setup languages` puts the tools.
fn tools() -> PathBuf {
    repository().join("target/languages")
}

pub(crate) fn lacks_rust() -> Option<&'static str> {
    machine::lacks_for_capture().or_else(|| {
        let found = toolchain::find(&Goal::plugin()).is_ok();
        (!found)
            .then_some("no toolchain builds for WebAssembly; `cargo xtask setup build` gets one")
    })
}

fn lacks_c() -> Option<&'static str> {
    lacks_tool("venv/bin/python-zig", "there is no zig; `cargo xtask setup languages` gets it")
}

fn lacks_js() -> Option<&'static str> {
    lacks_tool(
        "node_modules/.bin/componentize-qjs",
        "there is no componentize-qjs; `cargo xtask setup languages` gets it",
    )
}

fn lacks_python() -> Option<&'static str> {
    lacks_tool(
        "venv/bin/componentize-py",
        "there is no componentize-py; `cargo xtask setup languages` gets it",
    )
}

fn lacks_tool(path: &str, reason: &'static str) -> Option<&'static str> {
    // The plugin in Rust is what the others are swapped for.
    lacks_rust().or_else(|| (!tools().join(path).exists()).then_some(reason))
}

/// A project that was made by `plugin new`.
struct Project {
    place: tempfile::TempDir,
}

const NAME: &str = "counts";

impl Project {
    fn new(language: &str) -> Result<Project, Failed> {
        Project::for_role(language, "reporter")
    }

    fn for_role(language: &str, role: &str) -> Result<Project, Failed> {
        let place = tempfile::tempdir()?;
        let parent = place.path().as_os_str();
        let arguments: [OsString; 9] = [
            "plugin".into(),
            "new".into(),
            NAME.into(),
            "--role".into(),
            role.into(),
            "--lang".into(),
            language.into(),
            "--in".into(),
            parent.into(),
        ];
        said(&place.path().join("cache"), &arguments)?;
        Ok(Project { place })
    }

    fn folder(&self) -> PathBuf {
        self.place.path().join(NAME)
    }

    fn cache(&self) -> PathBuf {
        self.place.path().join("cache")
    }

    fn component(&self) -> PathBuf {
        self.folder().join("counts.wasm")
    }

    /// Runs a command in the folder of the project to its success.
    fn run(&self, command: &mut Command) -> Outcome {
        let program = command.get_program().to_owned();
        let output = without_our_own(command)
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .env("WHODUNIT", binary()?)
            .env("XDG_CACHE_HOME", self.cache())
            .output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, complaint) = (text(&output.stdout), text(&output.stderr));
        let program = program.display();
        expect(
            format!("{program} succeeds; it said {said} and {complaint}"),
            output.status.success(),
        )
    }

    /// Expects the built component to be what it should be: by its passport, on the example, and in a
    /// daemon.
    fn check(&self) -> Outcome {
        self.check_passport("reporter")?;
        let component = self.component();
        self.check_in_a_daemon(component.to_str().ok_or("a temporary path is text")?)
    }

    /// Expects what [`Project::check`] does, and that it takes over from the plugin in Rust and gives way to
    /// it.
    fn check_beside_rust(&self) -> Outcome {
        self.check()?;
        let rust = Project::new("rust")?;
        let tools = RustTools::new(&rust.place.path().join("bin"))?;
        rust.run(tools.prepare(&mut Command::new("./build")))?;
        self.swap_with(&rust.component())
    }

    fn check_passport(&self, role: &str) -> Outcome {
        let component = self.component();
        let component = component.to_str().ok_or("a temporary path is text")?;
        let arguments = ["plugin", "inspect", component, "--output", "json"];
        let passport: Value = serde_json::from_slice(&said(&self.cache(), &arguments)?)?;
        for (key, expected) in [
            ("name", json!(NAME)),
            ("version", json!("0.1.0")),
            ("role", json!(role)),
            ("wants", json!([])),
            ("accepted", json!(true)),
        ] {
            expect_eq(key, &passport[key], &expected)?;
        }
        Ok(())
    }

    /// The plugin in Rust, this one in its place, and that in Rust again, while one daemon runs: each counts
    /// what happened in its time.
    fn swap_with(&self, rust: &Path) -> Outcome {
        let pod = Pod::new("language-swap")?;
        let app = ["/etc/a", "/srv/b", "/opt/c"]
            .iter()
            .fold(pod.container("app"), |app, file| app.file(file, "", 0o644));
        let script =
            "cat /etc/a; echo first; read go; cat /srv/b; echo second; read go; cat /opt/c";
        let mut app = worker(app, script).start()?;
        let live = self.place.path().join("live.wasm");
        std::fs::copy(rust, &live)?;
        let output = self.place.path().join("live.json");
        let toml = format!(
            "[[plugin]]\nname = \"{NAME}\"\nsource = {live:?}\n\
             [plugin.outputs]\nreport = {{ file = {output:?} }}\n"
        );
        let cache = self.cache().join("whodunit");
        let config = DaemonConfig::for_pod(&pod)?.cache_dir(cache).more_toml(&toml);
        let daemon = config.start()?;
        let await_counts = |expected: Value| {
            let read = || serde_json::from_slice::<Value>(&std::fs::read(&output).ok()?).ok();
            let counted = wait_for(PATIENCE, || read().filter(|counted| *counted == expected));
            let said = format!("{expected}; the last was {:?}; {}", read(), daemon.stderr());
            expect(said, counted.is_some())
        };
        app.tell("go")?;
        app.hear("first")?;
        await_counts(json!({ "/etc": 1 }))?;
        for (component, heard, expected) in [
            (self.component(), "second", json!({ "/srv": 1 })),
            (rust.to_owned(), "done", json!({ "/opt": 1 })),
        ] {
            let new = live.with_extension("new");
            std::fs::copy(component, &new)?;
            std::fs::rename(&new, &live)?;
            let (code, said) = reload(&config, NAME)?;
            expect(format!("the next version is taken: {said}"), code == Some(0))?;
            app.tell("go")?;
            app.hear(heard)?;
            await_counts(expected)?;
        }
        let exit = daemon.stop()?;
        expect_eq("exit code", &exit.code(), &Some(0))
    }

    fn check_in_a_daemon(&self, component: &str) -> Outcome {
        let pod = Pod::new("languages")?;
        let app = pod.container("app").file("/etc/app.conf", "", 0o644);
        let app = app.file("/etc/more.conf", "", 0o644).file("/srv/data", "", 0o644);
        let mut app = worker(app, "cat /etc/app.conf /etc/more.conf /srv/data").start()?;
        let report = self.place.path().join("counts.json");
        let toml = format!(
            "[[plugin]]\nname = \"counts\"\nsource = {component:?}\n\
             [plugin.outputs]\nreport = {{ file = {report:?} }}\n"
        );
        // What `inspect` compiled is there already.
        let cache = self.cache().join("whodunit");
        let config = DaemonConfig::for_pod(&pod)?.cache_dir(cache).more_toml(&toml);
        let daemon = config.start()?;
        let_work(&mut app)?;
        let expected = json!({ "/etc": 2, "/srv": 1 });
        let read = || serde_json::from_slice::<Value>(&std::fs::read(&report).ok()?).ok();
        let counted = wait_for(PATIENCE, || read().filter(|counted| *counted == expected));
        let said = format!("counts; the last were {:?}; {}", read(), daemon.stderr());
        expect(said, counted.is_some())?;
        let exit = daemon.stop()?;
        expect_eq("exit code", &exit.code(), &Some(0))?;
        expect_eq("counts after the end", &read(), &Some(expected))
    }
}

fn path_with(folder: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).unwrap_or(path)
}

/// A cargo that builds for WebAssembly as one of rustup with that target does, whatever toolchain of this
/// machine can.
pub(crate) struct RustTools {
    path: OsString,
}

impl RustTools {
    /// Puts it into the folder `bin`, which is made.
    pub(crate) fn new(bin: &Path) -> Result<RustTools, Failed> {
        let found = toolchain::find(&Goal::plugin())?;
        let linker = toolchain::find_wasm_linker(&found)?;
        let variables: Vec<String> = found
            .environment(linker.as_deref())
            .into_iter()
            .map(|(name, value)| format!("'{name}={}'", value.display()))
            .collect();
        let usual = toolchain::current().cargo;
        // Where cargo is looked for in PATH, this script must not find itself.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in\n\
             *' wasm32-unknown-unknown '*) exec env {} '{}' \"$@\" ;;\n\
             *) exec env 'PATH={}' '{}' \"$@\" ;;\nesac\n",
            variables.join(" "),
            found.toolchain.cargo.display(),
            path.display(),
            usual.display(),
        );
        std::fs::create_dir_all(bin)?;
        let cargo = bin.join("cargo");
        std::fs::write(&cargo, script)?;
        std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755))?;
        Ok(RustTools { path: path_with(bin) })
    }

    /// Lets a command find it, and keep what it builds for the next time.
    pub(crate) fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        without_our_own(command)
            .env("PATH", &self.path)
            .env("CARGO_TARGET_DIR", tools().join("rust"))
    }
}

/// What the tests themselves were built with is not meant for a user's project.
fn without_our_own(command: &mut Command) -> &mut Command {
    const OURS: [&str; 4] =
        ["LD_LIBRARY_PATH", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"];
    for name in OURS {
        command.env_remove(name);
    }
    command
}

fn in_rust() -> Outcome {
    let project = Project::new("rust")?;
    let tools = RustTools::new(&project.place.path().join("bin"))?;
    project.run(tools.prepare(&mut Command::new("./test")))?;
    project.check()
}

fn in_c() -> Outcome {
    let project = Project::new("c")?;
    let mut compiler = tools().join("venv/bin/python").into_os_string();
    compiler.push(" -m ziglang cc --target=wasm32-wasi");
    // Zig builds its C library once and keeps it here.
    let mut test = Command::new("./test");
    test.env("WASM_CC", compiler).env("ZIG_GLOBAL_CACHE_DIR", tools().join("zig"));
    project.run(&mut test)?;
    project.check_beside_rust()
}

fn in_js() -> Outcome {
    let project = Project::new("js")?;
    symlink(tools().join("node_modules"), project.folder().join("node_modules"))?;
    project.run(&mut Command::new("./test"))?;
    project.check_beside_rust()
}

fn in_python() -> Outcome {
    let project = Project::new("python")?;
    project.run(Command::new("./test").env("PATH", path_with(&tools().join("venv/bin"))))?;
    project.check_beside_rust()
}

fn filter_in_rust() -> Outcome {
    let project = Project::for_role("rust", "filter")?;
    let tools = RustTools::new(&project.place.path().join("bin"))?;
    project.run(tools.prepare(&mut Command::new("./test")))?;
    project.check_passport("filter")?;
    let pod = Pod::new("new-filter")?;
    let app = pod.container("app").file("/srv/a.pyc", "", 0o644).file("/srv/a.py", "", 0o644);
    let mut app = worker(app, "cat /srv/a.pyc /srv/a.py").start()?;
    let toml = format!("[[plugin]]\nname = \"{NAME}\"\nsource = {:?}\n", project.component());
    let cache = project.cache().join("whodunit");
    let config = DaemonConfig::for_pod(&pod)?.cache_dir(cache).more_toml(&toml);
    let daemon = config.start()?;
    let_work(&mut app)?;
    let report = last_report(&config, daemon)?;
    let entry = report.container(&app)?;
    entry.expect_files(&["/bin/busybox", "/srv/a.py"])?;
    expect_eq("filtered", &entry.counter("filtered"), &1)
}

fn explainer_in_rust() -> Outcome {
    let project = Project::for_role("rust", "explainer")?;
    let tools = RustTools::new(&project.place.path().join("bin"))?;
    project.run(tools.prepare(&mut Command::new("./test")))?;
    project.check_passport("explainer")
}
