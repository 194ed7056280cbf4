//! Plugins that come, change and go while the daemon captures.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use libtest_mimic::{Failed, Trial};
use rustix::process::Signal;
use serde_json::{Value, json};
use whodunit_containers::condition::{PATIENCE, wait_for};
use whodunit_containers::daemon::binary;
use whodunit_containers::{Daemon, DaemonConfig, Pod};

use crate::discovery::{let_work, worker};
use crate::guests::{Guest, OK, filter_component};
use crate::report::{execs, expect, expect_eq, last_report};
use crate::roads::LoggedDaemon;
use crate::status::whodunit_status;
use crate::{Outcome, about_capture};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        about_capture("swaps::a_changed_file_is_swapped_and_a_broken_one_is_not", by_file),
        about_capture("swaps::sighup_takes_another_list_of_plugins", by_list),
        about_capture("swaps::a_command_reloads_a_plugin_and_says_what_came_of_it", by_command),
        about_capture("swaps::a_filter_drops_what_is_then_in_no_report", filtered),
        about_capture("swaps::rules_about_paths_keep_drop_and_tag", by_rules),
    ]
}

/// Says its name in every tick.
const FIRST: Guest = Guest { pages: 1, on_batch: OK, on_tick: SAY_NAME };
/// Says its version in every tick.
const SECOND: Guest = Guest { pages: 1, on_batch: OK, on_tick: SAY_VERSION };
const FIRST_SAYS: &str = "hostile";
const SECOND_SAYS: &str = "1.0.0";

const SAY_NAME: &str = r#"
    (call $emit (i32.const 32) (i32.const 6) (i32.const 0) (i32.const 7) (i32.const 2048))
    (i32.const 1024)"#;

const SAY_VERSION: &str = r#"
    (call $emit (i32.const 32) (i32.const 6) (i32.const 16) (i32.const 5) (i32.const 2048))
    (i32.const 1024)"#;

fn table(name: &str, component: &Path, output: &Path) -> String {
    format!(
        "[[plugin]]\nname = \"{name}\"\nsource = '{}'\n[plugin.outputs]\nreport = {{ file = '{}' }}\n",
        component.display(),
        output.display()
    )
}

fn await_text(path: &Path, text: &str) -> Outcome {
    let found = wait_for(PATIENCE, || (fs::read(path).ok()? == text.as_bytes()).then_some(()));
    found.ok_or_else(|| {
        let there = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Failed::from(format!("{} never held {text:?}: {there:?}", path.display()))
    })
}

fn await_refusal(daemon: &mut Daemon<'_>, words: &str) -> Outcome {
    daemon.await_log(&format!("a refusal with {words:?}"), |entry| {
        let text = entry.to_string();
        text.contains("the version that runs goes on") && text.contains(words)
    })?;
    Ok(())
}

fn by_file() -> Outcome {
    let pod = Pod::new("swap-file")?;
    let app = pod.container("app").file("/etc/a", "", 0o644).file("/etc/b", "", 0o644);
    let mut app = worker(app, "cat /etc/a; echo first; read go; cat /etc/b").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    // As the kubelet lays out a volume: the file is a link through `..data`.
    let folder = config.folder().join("volume");
    for (version, guest) in [("..1", &FIRST), ("..2", &SECOND)] {
        fs::create_dir_all(folder.join(version))?;
        fs::write(folder.join(version).join("a.wasm"), guest.component()?)?;
    }
    symlink("..1", folder.join("..data"))?;
    symlink("..data/a.wasm", folder.join("a.wasm"))?;
    let output = config.folder().join("out/a.json");
    let config = config.more_toml(&table("swapped", &folder.join("a.wasm"), &output));
    let mut daemon = config.start()?;
    await_text(&output, FIRST_SAYS)?;
    app.tell("go")?;
    app.hear("first")?;

    symlink("..2", folder.join("..data_tmp"))?;
    fs::rename(folder.join("..data_tmp"), folder.join("..data"))?;
    await_text(&output, SECOND_SAYS)?;

    let whole = FIRST.component()?;
    fs::write(folder.join("..2/a.wasm"), &whole[..whole.len() / 2])?;
    await_refusal(&mut daemon, "damaged")?;
    let other = Guest { on_batch: "(unreachable)", ..FIRST }.component_for("0.9.0")?;
    fs::write(folder.join("..2/a.wasm"), other)?;
    await_refusal(&mut daemon, "built for whodunit:plugin@0.9.0")?;
    expect_eq("what is written", &fs::read_to_string(&output)?.as_str(), &SECOND_SAYS)?;

    fs::write(folder.join("..2/new.wasm"), &whole)?;
    fs::rename(folder.join("..2/new.wasm"), folder.join("..2/a.wasm"))?;
    await_text(&output, FIRST_SAYS)?;
    let_work(&mut app)?;
    let report = last_report(&config, daemon)?;
    let entry = report.container(&app)?;
    entry.expect_files(&["/bin/busybox", "/etc/a", "/etc/b"])?;
    entry.expect_nothing_lost()?;
    expect_eq("dropped_events", &report.number("dropped_events"), &0)
}

fn by_list() -> Outcome {
    let pod = Pod::new("swap-list")?;
    let app = pod.container("app").file("/etc/a", "", 0o644);
    let mut app = worker(app, "cat /etc/a").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let at = |name: &str| config.folder().join(name);
    fs::write(at("first.wasm"), FIRST.component()?)?;
    fs::write(at("second.wasm"), SECOND.component()?)?;
    let mut daemon = config.start()?;
    let base = config.toml();
    let first = table("first", &at("first.wasm"), &at("out/first.json"));
    let second = table("second", &at("second.wasm"), &at("out/second.json"));

    fs::write(config.toml_path(), format!("{base}{first}"))?;
    daemon.signal(Signal::HUP)?;
    await_text(&at("out/first.json"), FIRST_SAYS)?;

    fs::write(config.toml_path(), format!("{base}[[plugin]]\nname = 7\n"))?;
    daemon.signal(Signal::HUP)?;
    daemon.await_log("that the configuration was not taken", |entry| {
        entry.to_string().contains("the configuration was not taken")
    })?;

    fs::write(config.toml_path(), format!("{second}{base}"))?;
    daemon.signal(Signal::HUP)?;
    await_text(&at("out/second.json"), SECOND_SAYS)?;
    daemon.await_log("that the first one was removed", |entry| {
        let text = entry.to_string();
        text.contains("\"removed\"") && text.contains("\"first\"")
    })?;
    let_work(&mut app)?;
    let report = last_report(&config, daemon)?;
    report.container(&app)?.expect_files(&["/bin/busybox", "/etc/a"])?;
    expect_eq("dropped_events", &report.number("dropped_events"), &0)
}

fn by_command() -> Outcome {
    let pod = Pod::new("swap-command")?;
    let app = pod.container("app").file("/etc/a", "", 0o644);
    let mut app = worker(app, "cat /etc/a").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let component = config.folder().join("a.wasm");
    fs::write(&component, FIRST.component()?)?;
    let output = config.folder().join("out/a.json");
    let config = config.more_toml(&table("a", &component, &output));
    let daemon = config.start()?;
    await_text(&output, FIRST_SAYS)?;
    let reload = |arguments: &[&str]| -> Result<Output, Failed> {
        let mut command = Command::new(binary()?);
        command.args(["plugin", "reload", "--state-dir"]).arg(config.folder().join("state"));
        Ok(command.args(arguments).output()?)
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();

    // The file is as it was: nothing but the command has an instance made.
    let all = reload(&["--output", "json"])?;
    let (said, complaint) = (text(&all.stdout), text(&all.stderr));
    expect(format!("all are reloaded: {said} {complaint}"), all.status.success())?;
    let reloaded: Value = serde_json::from_str(&said)?;
    let names: Vec<_> = reloaded.as_array().into_iter().flatten().map(|it| &it["plugin"]).collect();
    expect_eq("plugins", &names, &vec![&json!("report"), &json!("death-explainer"), &json!("a")])?;
    for it in reloaded.as_array().into_iter().flatten() {
        expect_eq("failure", &it["failure"], &Value::Null)?;
        expect_eq("hash", &it["swap"]["sha256_after"], &it["swap"]["sha256_before"])?;
    }
    let status = whodunit_status(&config.folder().join("state"), "json")?;
    let status: Value = serde_json::from_slice(&status.stdout)?;
    for plugin in status["plugins"].as_array().into_iter().flatten() {
        expect_eq("instance", &plugin["instance"], &json!(2))?;
    }

    fs::write(&component, b"\0asm")?;
    let broken = reload(&["a"])?;
    expect_eq("exit code for a broken file", &broken.status.code(), &Some(1))?;
    let said = text(&broken.stdout);
    expect(said.clone(), said.starts_with("a: not reloaded, what ran before goes on: "))?;
    let unknown = reload(&["b"])?;
    expect_eq("exit code for an unknown name", &unknown.status.code(), &Some(1))?;
    expect_eq(
        "what it says",
        &text(&unknown.stderr).as_str(),
        &"whodunit: error: there is no plugin `b`; there is `report`, `death-explainer`, `a`\n",
    )?;
    let_work(&mut app)?;
    let report = last_report(&config, daemon)?;
    let entry = report.container(&app)?;
    entry.expect_files(&["/bin/busybox", "/etc/a"])?;
    entry.expect_nothing_lost()
}

fn filtered() -> Outcome {
    let pod = Pod::new("filtered")?;
    let app = pod.container("app").file("/etc/drop", "", 0o644).file("/etc/keep-it", "", 0o644);
    let mut app = worker(app, "cat /etc/drop /etc/keep-it /etc/drop /etc/keep-it").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let component = config.folder().join("filter.wasm");
    fs::write(&component, filter_component()?)?;
    let config = config.more_toml(&format!(
        "[[plugin]]\nname = \"filter\"\nsource = '{}'\nevents = [\"files\"]\n",
        component.display()
    ));
    let daemon = config.start()?;
    let_work(&mut app)?;
    let report = last_report(&config, daemon)?;
    let entry = report.container(&app)?;
    entry.expect_files(&["/bin/busybox", "/etc/keep-it"])?;
    entry.expect_nothing_lost()?;
    // The program and what it opens; the kernel absorbs the second time.
    entry.expect_events(4 + execs(1))?;
    expect_eq("filtered", &entry.counter("filtered"), &1)
}

const RULES: &str = r#"
[[plugin]]
name = "rules"
source = "builtin:path-filter"

[[plugin.config.rules]]
prefix = "/srv/cache"
action = "drop"

[[plugin.config.rules]]
glob = "/etc/*.key"
action = "tag"
tag = 7

[[plugin.config.rules]]
regex = "^/etc/[a-z]+$"
containers = ["other-*"]
action = "drop"

[[plugin.config.rules]]
regex = "^/srv/.*[.]tmp$"
containers = ["app-*"]
action = "drop"
"#;

fn by_rules() -> Outcome {
    let pod = Pod::new("rules")?;
    let files = ["/srv/cache/a", "/srv/cached", "/etc/a.key", "/etc/plain", "/srv/a.tmp"];
    let app = files.iter().fold(pod.container("app"), |app, file| app.file(file, "", 0o644));
    let mut app = worker(app, &format!("cat {}", files.join(" "))).start()?;
    let LoggedDaemon { config, log } = LoggedDaemon::for_pod(&pod)?;
    let logged = LoggedDaemon { config: config.more_toml(RULES), log };
    let daemon = logged.config.start()?;
    let_work(&mut app)?;
    let report = last_report(&logged.config, daemon)?;
    let entry = report.container(&app)?;
    entry.expect_files(&["/bin/busybox", "/etc/a.key", "/etc/plain", "/srv/cached"])?;
    entry.expect_nothing_lost()?;
    expect_eq("filtered", &entry.counter("filtered"), &2)?;
    let events = logged.events()?;
    let tagged: Vec<_> = events.iter().filter(|event| !event["tags"].is_null()).collect();
    expect_eq("events with tags", &tagged.len(), &1)?;
    expect_eq("the path", &tagged[0]["path"], &json!("/etc/a.key"))?;
    expect_eq("its tags", &tagged[0]["tags"], &json!([7]))
}
