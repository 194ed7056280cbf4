//! Plugins in every language that `whodunit plugin new` knows: made, built, inspected, run on a recording,
//! and loaded into a daemon that watches a real container.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use rustix::process::Signal;
use serde_json::{Value, json};
use whodunit_artifacts::toolchain::{self, Found, Goal};
use whodunit_containers::condition::{PATIENCE, wait_for};
use whodunit_containers::daemon::binary;
use whodunit_containers::{DaemonConfig, DaemonError, Pod};

use crate::discovery::{let_work, worker};
use crate::recording::{said, whodunit};
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
    let wasip2 = [
        needing(
            "languages::a_plugin_in_rust_for_wasip2_counts_with_the_grants_that_inspect_prints",
            lacks_wasip2,
            counts_for_wasip2,
        ),
        needing(
            "languages::a_plugin_in_rust_for_wasip2_reads_its_folder_and_variable_and_no_other",
            lacks_wasip2,
            reads_for_wasip2,
        ),
    ];
    [
        each("a_new_plugin_in_LANGUAGE_builds_and_counts", reporter),
        each("a_new_filter_in_LANGUAGE_builds_and_drops", filter),
        each("a_new_explainer_in_LANGUAGE_builds_and_explains", explainer),
    ]
    .into_iter()
    .flatten()
    .chain([system])
    .chain(wasip2)
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

/// What plugins against the system interface need and this machine lacks.
fn lacks_wasip2() -> Option<&'static str> {
    machine::lacks_for_capture().or_else(|| {
        let found = toolchain::find(&Goal::system_plugin()).is_ok();
        (!found).then_some(
            "no toolchain builds for wasm32-wasip2; `cargo xtask setup languages` gets it where rustup can",
        )
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
        let passport = project.passport(role)?;
        expect_eq("wants", &passport["wants"], &json!([]))?;
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

    /// Builds a plugin in Rust against the system interface: what comes out of cargo is a component.
    fn build_for_wasip2(&self) -> Outcome {
        let bin = self.place.path().join("bin");
        let mut build = Command::new(bin.join("cargo"));
        RustTools::for_wasip2(&bin)?.prepare(&mut build);
        self.run(build.args(["build", "--release", "--target", "wasm32-wasip2"]))?;
        let built = tools().join("rust/wasm32-wasip2/release").join(self.name.replace('-', "_"));
        std::fs::copy(built.with_extension("wasm"), self.component())?;
        Ok(())
    }

    /// What `inspect` says of it, as far as that is the same for every project.
    fn passport(&self, role: &str) -> Result<Value, Failed> {
        let component = self.component();
        let component = component.to_str().ok_or("a temporary path is text")?;
        let arguments = ["plugin", "inspect", component, "--output", "json"];
        let passport: Value = serde_json::from_slice(&said(&self.cache(), &arguments)?)?;
        for (key, expected) in [
            ("name", json!(self.name)),
            ("version", json!("0.1.0")),
            ("role", json!(role)),
            ("accepted", json!(true)),
        ] {
            expect_eq(key, &passport[key], &expected)?;
        }
        Ok(passport)
    }

    /// Has text of a file of the project replaced.
    fn edit(&self, file: &str, from: &str, to: &str) -> Outcome {
        let path = self.folder().join(file);
        let text = std::fs::read_to_string(&path)?;
        expect(format!("{file} has {from:?}"), text.contains(from))?;
        Ok(std::fs::write(&path, text.replacen(from, to, 1))?)
    }

    /// A daemon whose TOML grants it nothing does not start.
    fn check_refusal(&self, pod: &Pod) -> Outcome {
        let config = self.daemon(pod)?.more_toml(&self.table());
        let Err(DaemonError::Ended { exit }) = config.start() else {
            return Err("a daemon that grants nothing starts with it".into());
        };
        let complaint = exit.complaints().join(" ");
        expect(complaint.clone(), complaint.contains("wasi:") && complaint.contains("p2"))
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

    /// The plugin, of which the TOML says this, counts what a container does.
    fn check_in_a_daemon(&self, table: &str) -> Outcome {
        let pod = Pod::new("languages")?;
        let app = pod.container("app").file("/etc/app.conf", "", 0o644);
        let app = app.file("/etc/more.conf", "", 0o644).file("/srv/data", "", 0o644);
        let mut app = worker(app, "cat /etc/app.conf /etc/more.conf /srv/data").start()?;
        let report = self.place.path().join("counts.json");
        let toml = format!("{table}[plugin.outputs]\nreport = {{ file = {report:?} }}\n");
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

    /// The filter, as it runs in this daemon, drops one of two files that a container reads, and not the other. `says` is what
    /// it logs.
    fn check_filters(config: &DaemonConfig, pod: &Pod, kept: &str, says: &[&str]) -> Outcome {
        let app = pod.container("app").file("/srv/a.pyc", "", 0o644).file("/srv/a.py", "", 0o644);
        let mut app = worker(app, "cat /srv/a.pyc /srv/a.py").start()?;
        let mut daemon = config.start()?;
        for says in says {
            daemon.await_log(says, |entry| entry.to_string().contains(*says))?;
        }
        let_work(&mut app)?;
        let report = last_report(config, daemon)?;
        let entry = report.container(&app)?;
        entry.expect_files(&["/bin/busybox", kept])?;
        expect_eq("filtered", &entry.counter("filtered"), &1)
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
        let goal = Goal::plugin();
        let found = toolchain::find(&goal)?;
        let linker = toolchain::find_wasm_linker(&found)?;
        RustTools::for_goal(bin, &goal, &found, linker.as_deref())
    }

    /// The same with a cargo that builds against the system interface instead. That target has a linker of its own.
    fn for_wasip2(bin: &Path) -> Result<RustTools, Failed> {
        let goal = Goal::system_plugin();
        RustTools::for_goal(bin, &goal, &toolchain::find(&goal)?, None)
    }

    fn for_goal(
        bin: &Path,
        goal: &Goal,
        found: &Found,
        linker: Option<&Path>,
    ) -> Result<RustTools, Failed> {
        let variables: Vec<String> = found
            .environment(linker)
            .into_iter()
            .map(|(name, value)| format!("'{name}={}'", value.display()))
            .collect();
        let usual = toolchain::current().cargo;
        // Where cargo is looked for in PATH, this script must not find itself.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in\n\
             *' {} '*) exec env {} '{}' \"$@\" ;;\n\
             *) exec env 'PATH={}' '{}' \"$@\" ;;\nesac\n",
            goal.target,
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
    project.check_in_a_daemon(&project.table())?;
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
    let config = project.daemon(&pod)?.more_toml(&project.table());
    Project::check_filters(&config, &pod, "/srv/a.py", &[])
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

/// A plugin whose engine asks the system for the time: it is refused where nothing is granted, and gets it with the
/// grant of clocks.
fn of_the_system() -> Outcome {
    let project = Project::new(Language::Js, "reporter")?;
    project.edit("build", " --stub-wasi", "")?;
    let year = "let year = new Date().getFullYear(); write(\"info\", `it is ${year} inside`);";
    project.edit("plugin.js", "start(context) {", &format!("start(context) {{ {year}"))?;
    let import = "import { write } from \"whodunit:plugin/log@0.1.0\";\nimport";
    project.edit("plugin.js", "import", import)?;
    let mut build = Command::new("./build");
    Language::Js.prepare(&mut build, &project)?;
    project.run(&mut build)?;

    let pod = Pod::new("languages")?;
    let mut app = worker(pod.container("app").file("/etc/a", "", 0o644), "cat /etc/a").start()?;
    project.check_refusal(&pod)?;

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

/// The example in Rust as it is, built for `wasm32-wasip2`: refused where nothing is granted, it counts with what
/// `inspect` prints, on a recording and in a daemon.
fn counts_for_wasip2() -> Outcome {
    let project = Project::new(Language::Rust, "reporter")?;
    project.build_for_wasip2()?;
    let passport = project.passport("reporter")?;
    let wants = &passport["wants"];
    let has = |interface: &str| {
        let of = |want: &Value| want.as_str().is_some_and(|want| want.starts_with(interface));
        wants.as_array().is_some_and(|wants| wants.iter().any(of))
    };
    expect(format!("it wants of the system: {wants}"), has("wasi:cli/environment@0.2"))?;
    let table = passport["toml"].as_str().ok_or("the passport has a table")?;
    let grants = table.lines().find_map(|line| line.strip_prefix("grants = "));
    let grants = grants.ok_or_else(|| format!("the table has grants: {table}"))?;

    let examples = repository().join("plugins/examples");
    let (component, recording) = (project.component(), examples.join("example.recording"));
    let run = [OsStr::new("plugin"), "run".as_ref(), component.as_os_str(), "--last".as_ref()];
    let run = [&run[..], &["--events".as_ref(), recording.as_os_str()]].concat();
    let output = whodunit(&project.cache(), &run)?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(format!("without a grant: {complaint}"), complaint.contains("wasi:cli/environment"))?;
    expect("without a grant it does not run", !output.status.success())?;
    let run = [&run[..], &["--grants".as_ref(), grants.as_ref()]].concat();
    let counted = said(&project.cache(), &run)?;
    let expected = std::fs::read(examples.join("top-folders/expected.json"))?;
    expect_eq("counts", &String::from_utf8_lossy(&counted), &String::from_utf8_lossy(&expected))?;

    project.check_refusal(&Pod::new("languages")?)?;
    project.check_in_a_daemon(table)
}

/// What a filter does at its start that reads its rules from a folder, and looks further.
const READS_RULES: &str = r#"
        let told = |done: std::io::Result<()>| match done {
            Ok(()) => "done".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        };
        let sentence = |error: std::io::Error| error.to_string();
        let entries = std::fs::read_dir("/rules").map_err(sentence)?;
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(sentence)?.file_name().into_string().unwrap_or_default());
        }
        names.sort();
        let variables = std::env::vars().map(|(name, value)| format!("{name}={value}"));
        whodunit_sdk::info!(
            "variables {}; names {}; up {}; link {}; write {}",
            variables.collect::<Vec<_>>().join(" "),
            names.join(" "),
            told(std::fs::read("/rules/../secret").map(drop)),
            told(std::fs::read("/rules/out").map(drop)),
            told(std::fs::write("/rules/endings", "")),
        );
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        println!("printed at {now:?}");
        let endings = std::fs::read_to_string("/rules/endings").map_err(sentence)?;
        let config = Config { endings: endings.lines().map(str::to_owned).collect() };
        if config.endings"#;

/// A filter that reads its rules with `std::fs`, and a variable with `std::env`, and prints: it gets the folder, the variable and
/// the log that are granted, and nothing else of the machine, a clock neither.
fn reads_for_wasip2() -> Outcome {
    let project = Project::new(Language::Rust, "filter")?;
    project.edit("src/lib.rs", "\n        if config.endings", READS_RULES)?;
    project.build_for_wasip2()?;
    project.passport("filter")?;
    let given = project.place.path().join("given");
    std::fs::create_dir(&given)?;
    // Not what it drops by itself.
    std::fs::write(given.join("endings"), ".py\n")?;
    std::fs::write(project.place.path().join("secret"), "")?;
    symlink("../secret", given.join("out"))?;

    let pod = Pod::new("new-filter")?;
    let grants = format!(
        "{{ output = true, environment = [\"TRIAL_SEEN\"], folders = {{ \"/rules\" = {given:?} }} }}"
    );
    let toml = format!("{}wasi = \"p2\"\ngrants = {grants}\n", project.table());
    let config = project.daemon(&pod)?.more_toml(&toml);
    let config = config.environment("TRIAL_SEEN", "yes").environment("TRIAL_UNSEEN", "no");
    let says = "variables TRIAL_SEEN=yes; names endings out; up PermissionDenied; link PermissionDenied; \
                write ReadOnlyFilesystem";
    Project::check_filters(&config, &pod, "/srv/a.pyc", &[says, "printed at Ok(0ns)"])?;
    expect_eq("rules", &std::fs::read_to_string(given.join("endings"))?, &".py\n".to_owned())
}
