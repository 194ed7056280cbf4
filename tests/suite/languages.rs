//! Plugins in every language that `whodunit plugin new` knows: made, built, inspected, run on a recording,
//! and loaded into a daemon that watches a real container.

use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use rustix::process::Signal;
use serde_json::{Value, json};
use whodunit_artifacts::toolchain::{self, Goal};
use whodunit_containers::condition::{PATIENCE, wait_for};
use whodunit_containers::daemon::binary;
use whodunit_containers::{DaemonConfig, DaemonError, Pod};

use crate::discovery::{let_work, worker};
use crate::recording::said;
use crate::report::{expect, expect_eq, last_report, repository};
use crate::swaps::reload;
use crate::{Outcome, machine, needing};

pub(crate) fn trials() -> Vec<Trial> {
    let each = |name: &str, test: fn(Language) -> Outcome| {
        let name = name.to_owned();
        Language::ALL.map(|language| {
            let name = name.replace("LANGUAGE", language.word());
            needing(format!("languages::{name}"), move || language.lacks(), move || test(language))
        })
    };
    let system = needing(
        "languages::a_plugin_that_wants_the_system_gets_what_is_granted",
        || Language::Js.lacks(),
        of_the_system,
    );
    [
        each("a_new_plugin_in_LANGUAGE_builds_and_counts", reporter),
        each("a_new_filter_in_LANGUAGE_builds_and_drops", filter),
        each("a_new_explainer_in_LANGUAGE_builds_and_explains", explainer),
    ]
    .into_iter()
    .flatten()
    .chain([system])
    .collect()
}

/// What a plugin is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Rust,
    C,
    Js,
    Python,
}

impl Language {
    const ALL: [Language; 4] = [Language::Rust, Language::C, Language::Js, Language::Python];

    /// The word that `plugin new` knows it by.
    fn word(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::C => "c",
            Language::Js => "js",
            Language::Python => "python",
        }
    }

    /// What its plugins need and this machine lacks. The plugin in Rust is what the others are swapped for.
    fn lacks(self) -> Option<&'static str> {
        let (tool, reason) = match self {
            Language::Rust => return lacks_rust(),
            Language::C => {
                ("venv/bin/python-zig", "there is no zig; `cargo xtask setup languages` gets it")
            }
            Language::Js => (
                "node_modules/.bin/componentize-qjs",
                "there is no componentize-qjs; `cargo xtask setup languages` gets it",
            ),
            Language::Python => (
                "venv/bin/componentize-py",
                "there is no componentize-py; `cargo xtask setup languages` gets it",
            ),
        };
        lacks_rust().or_else(|| (!tools().join(tool).exists()).then_some(reason))
    }

    /// Has a command of a project find the tools of this machine.
    fn prepare(self, command: &mut Command, project: &Project) -> Outcome {
        match self {
            Language::Rust => {
                RustTools::new(&project.place.path().join("bin"))?.prepare(command);
            }
            Language::C => {
                let mut compiler = tools().join("venv/bin/python").into_os_string();
                compiler.push(" -m ziglang cc --target=wasm32-wasi");
                // Zig builds its C library once and keeps it here.
                command.env("WASM_CC", compiler).env("ZIG_GLOBAL_CACHE_DIR", tools().join("zig"));
            }
            Language::Js => {
                symlink(tools().join("node_modules"), project.folder().join("node_modules"))?;
            }
            Language::Python => {
                command.env("PATH", path_with(&tools().join("venv/bin")));
            }
        }
        Ok(())
    }
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

/// A project that was made by `plugin new`.
struct Project {
    place: tempfile::TempDir,
    /// One for each role: projects in Rust share a folder of what was built.
    name: String,
}

/// Name of the reporters.
const NAME: &str = "counts";

impl Project {
    /// Makes one that was not built yet.
    fn new(language: Language, role: &str) -> Result<Project, Failed> {
        let place = tempfile::tempdir()?;
        let parent = place.path().as_os_str();
        let name = if role == "reporter" { NAME.to_owned() } else { format!("new-{role}") };
        let arguments: [OsString; 9] = [
            "plugin".into(),
            "new".into(),
            name.clone().into(),
            "--role".into(),
            role.into(),
            "--lang".into(),
            language.word().into(),
            "--in".into(),
            parent.into(),
        ];
        said(&place.path().join("cache"), &arguments)?;
        Ok(Project { place, name })
    }

    /// Makes one whose own test has built it and passed, and whose passport is as it should be.
    fn tested(language: Language, role: &str) -> Result<Project, Failed> {
        let project = Project::new(language, role)?;
        let mut test = Command::new("./test");
        language.prepare(&mut test, &project)?;
        project.run(&mut test)?;
        project.check_passport(role)?;
        Ok(project)
    }

    fn folder(&self) -> PathBuf {
        self.place.path().join(&self.name)
    }

    fn cache(&self) -> PathBuf {
        self.place.path().join("cache")
    }

    fn component(&self) -> PathBuf {
        self.folder().join(format!("{}.wasm", self.name))
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

    fn check_passport(&self, role: &str) -> Outcome {
        let component = self.component();
        let component = component.to_str().ok_or("a temporary path is text")?;
        let arguments = ["plugin", "inspect", component, "--output", "json"];
        let passport: Value = serde_json::from_slice(&said(&self.cache(), &arguments)?)?;
        for (key, expected) in [
            ("name", json!(self.name)),
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
        let config = self.daemon(&pod)?.more_toml(&toml);
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

    /// The plugin counts what a container does.
    fn check_in_a_daemon(&self) -> Outcome {
        let pod = Pod::new("languages")?;
        let app = pod.container("app").file("/etc/app.conf", "", 0o644);
        let app = app.file("/etc/more.conf", "", 0o644).file("/srv/data", "", 0o644);
        let mut app = worker(app, "cat /etc/app.conf /etc/more.conf /srv/data").start()?;
        let report = self.place.path().join("counts.json");
        let toml = format!("{}[plugin.outputs]\nreport = {{ file = {report:?} }}\n", self.table());
        let config = self.daemon(&pod)?.more_toml(&toml);
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

    /// Its table in a TOML.
    fn table(&self) -> String {
        format!("[[plugin]]\nname = {:?}\nsource = {:?}\n", self.name, self.component())
    }

    /// A daemon that finds what `inspect` and the project's test compiled.
    fn daemon(&self, pod: &Pod) -> Result<DaemonConfig, Failed> {
        Ok(DaemonConfig::for_pod(pod)?.cache_dir(self.cache().join("whodunit")))
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

fn reporter(language: Language) -> Outcome {
    let project = Project::tested(language, "reporter")?;
    project.check_in_a_daemon()?;
    if language == Language::Rust {
        return Ok(());
    }
    // It takes over from the plugin in Rust and gives way to it.
    let rust = Project::new(Language::Rust, "reporter")?;
    let mut build = Command::new("./build");
    Language::Rust.prepare(&mut build, &rust)?;
    rust.run(&mut build)?;
    project.swap_with(&rust.component())
}

fn filter(language: Language) -> Outcome {
    let project = Project::tested(language, "filter")?;
    let pod = Pod::new("new-filter")?;
    let app = pod.container("app").file("/srv/a.pyc", "", 0o644).file("/srv/a.py", "", 0o644);
    let mut app = worker(app, "cat /srv/a.pyc /srv/a.py").start()?;
    let config = project.daemon(&pod)?.more_toml(&project.table());
    let daemon = config.start()?;
    let_work(&mut app)?;
    let report = last_report(&config, daemon)?;
    let entry = report.container(&app)?;
    entry.expect_files(&["/bin/busybox", "/srv/a.py"])?;
    expect_eq("filtered", &entry.counter("filtered"), &1)
}

fn explainer(language: Language) -> Outcome {
    let project = Project::tested(language, "explainer")?;
    let pod = Pod::new("new-explainer")?;
    let app = pod.container("app");
    let mut app = worker(app, "sh -c 'exit 78'; sh -c 'exit 3'").start()?;
    let config = project.daemon(&pod)?;
    let mut daemon = config.start()?;
    // Ahead of the shipped one, which has a verdict on every exit code.
    let toml = format!("{}{}", project.table(), config.toml());
    std::fs::write(config.toml_path(), toml)?;
    daemon.signal(Signal::HUP)?;
    daemon.await_log("that the explainer was added", |entry| {
        let text = entry.to_string();
        text.contains("\"added\"") && text.contains(&project.name)
    })?;
    let_work(&mut app)?;
    let history = config.state_dir().join("deaths.jsonl");
    let explained = || {
        let text = std::fs::read_to_string(&history).ok()?;
        let deaths: Vec<Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let of = |code: u8| {
            let fits = |death: &&Value| death["death"]["status"]["code"] == code;
            let death = deaths.iter().find(fits)?;
            Some((
                death["explanation"]["explainer"].clone(),
                death["explanation"]["verdict"].clone(),
            ))
        };
        of(78).zip(of(3))
    };
    let found = wait_for(PATIENCE, explained);
    let (known, other) = found.ok_or("the two deaths are not in the history")?;
    expect_eq("of a code that it knows", &known, &(json!(project.name), json!("known-exit-code")))?;
    expect_eq("of another", &other, &(json!("death-explainer"), json!("application-error")))?;
    let exit = daemon.stop()?;
    expect_eq("exit code", &exit.code(), &Some(0))
}

/// A plugin whose engine asks the system for the time: it is refused where nothing is granted, and gets it with
/// the grant of clocks.
fn of_the_system() -> Outcome {
    let project = Project::new(Language::Js, "reporter")?;
    let edit = |file: &str, from: &str, to: &str| -> Outcome {
        let path = project.folder().join(file);
        let text = std::fs::read_to_string(&path)?;
        expect(format!("{file} has {from:?}"), text.contains(from))?;
        Ok(std::fs::write(&path, text.replacen(from, to, 1))?)
    };
    edit("build", " --stub-wasi", "")?;
    let year = "let year = new Date().getFullYear(); write(\"info\", `it is ${year} inside`);";
    edit("plugin.js", "start(context) {", &format!("start(context) {{ {year}"))?;
    edit("plugin.js", "import", "import { write } from \"whodunit:plugin/log@0.1.0\";\nimport")?;
    let mut build = Command::new("./build");
    Language::Js.prepare(&mut build, &project)?;
    project.run(&mut build)?;

    let pod = Pod::new("languages")?;
    let mut app = worker(pod.container("app").file("/etc/a", "", 0o644), "cat /etc/a").start()?;
    let config = project.daemon(&pod)?.more_toml(&project.table());
    let Err(DaemonError::Ended { exit }) = config.start() else {
        return Err("a daemon that grants nothing starts with it".into());
    };
    let complaint = exit.complaints().join(" ");
    expect(complaint.clone(), complaint.contains("wasi:") && complaint.contains("p2"))?;

    let report = project.place.path().join("counts.json");
    let toml = format!(
        "{}wasi = \"p2\"\ngrants = {{ clocks = true }}\n[plugin.outputs]\nreport = {{ file = {report:?} }}\n",
        project.table()
    );
    let config = project.daemon(&pod)?.more_toml(&toml);
    let mut daemon = config.start()?;
    daemon.await_log("the year that it found", |entry| {
        let text = entry.to_string();
        let year = |year: u32| text.contains(&format!("it is {year} inside"));
        text.contains(&project.name) && (2026..2100).any(year)
    })?;
    let_work(&mut app)?;
    let exit = daemon.stop()?;
    expect_eq("exit code", &exit.code(), &Some(0))?;
    let counted: Value = serde_json::from_slice(&std::fs::read(&report)?)?;
    expect_eq("counts", &counted, &json!({ "/etc": 1 }))
}
