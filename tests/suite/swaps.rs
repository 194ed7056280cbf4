//! Plugins that come, change and go while the daemon captures.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use rustix::process::Signal;
use serde_json::{Value, json};
use whodunit_containers::condition::{PATIENCE, slowness, wait_for};
use whodunit_containers::daemon::{binary, call_limit};
use whodunit_containers::{Container, Daemon, DaemonConfig, Pod, program};

use crate::deaths::{await_death, hear_numbers};
use crate::discovery::{let_work, worker};
use crate::guests::{Guest, OK, counting_component, explainer_component, filter_component};
use crate::report::{Report, execs, expect, expect_eq, last_report};
use crate::roads::LoggedDaemon;
use crate::status::whodunit_status;
use crate::{Outcome, about_capture, machine, needing};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        about_capture("swaps::a_changed_file_is_swapped_and_a_broken_one_is_not", by_file),
        about_capture("swaps::sighup_takes_another_list_of_plugins", by_list),
        about_capture("swaps::a_command_reloads_a_plugin_and_says_what_came_of_it", by_command),
        needing(
            "swaps::two_hundred_under_a_flood_lose_no_event_and_hold_up_nobody",
            lacks_flood,
            under_a_flood,
        ),
        needing("swaps::lines_of_a_swapped_plugin_are_each_event_once", lacks_flood, swapped_lines),
        about_capture("swaps::a_version_that_does_not_do_is_told_in_the_status", bad_versions),
        about_capture("swaps::a_version_beside_the_one_that_runs_is_compared_and_promoted", beside),
        about_capture("swaps::a_filter_beside_another_is_compared_and_promoted", beside_a_filter),
        about_capture(
            "swaps::an_explainer_beside_another_is_compared_and_promoted",
            beside_an_explainer,
        ),
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

/// Has a plugin loaded again by command. Gives the exit code and what was said.
pub(crate) fn reload(config: &DaemonConfig, plugin: &str) -> Result<(Option<i32>, String), Failed> {
    let mut command = Command::new(binary()?);
    command.args(["plugin", "reload", plugin, "--state-dir"]).arg(config.state_dir());
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.code(), said + &String::from_utf8_lossy(&output.stderr)))
}

fn status_of(config: &DaemonConfig) -> Result<Value, Failed> {
    let status = whodunit_status(&config.state_dir(), "json")?;
    Ok(serde_json::from_slice(&status.stdout)?)
}

/// What the status says of a plugin.
fn plugin_of(config: &DaemonConfig, name: &str) -> Result<Value, Failed> {
    let status = status_of(config)?;
    let plugins = status["plugins"].as_array().cloned().unwrap_or_default();
    let found = plugins.into_iter().find(|plugin| plugin["name"] == name);
    found.ok_or_else(|| format!("the status has no plugin `{name}`").into())
}

/// A daemon with a plugin that counts, swapped by command as often as one likes.
struct Swapped {
    config: DaemonConfig,
    component: PathBuf,
    output: PathBuf,
}

/// What a counting plugin says at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    events: u64,
    last: u64,
    /// How often the number of an event was not that of the one before, and 1.
    gaps: u64,
}

impl Swapped {
    fn for_pod(pod: &Pod) -> Result<Swapped, Failed> {
        let config = DaemonConfig::for_pod(pod)?;
        let component = config.folder().join("counts.wasm");
        fs::write(&component, counting_component(0, &[])?)?;
        let output = config.folder().join("out/counts");
        let toml = format!(
            "{}[plugin.limits]\ncall = \"{}\"\nqueue = 400000\n",
            table("counts", &component, &output),
            call_limit()
        );
        // The report does not grow with the events, so the daemon's memory tells of the swaps; and the machine's processors are
        // the flood's and the swapped plugin's.
        let config = config.report_events("exec").more_toml(&toml);
        Ok(Swapped { config, component, output })
    }

    /// Puts a component there and has it loaded. Gives the exit code and what was said.
    fn reload(&self, component: &[u8]) -> Result<(Option<i32>, String), Failed> {
        let new = self.component.with_extension("new");
        fs::write(&new, component)?;
        fs::rename(&new, &self.component)?;
        reload(&self.config, "counts")
    }

    fn status(&self) -> Result<Value, Failed> {
        status_of(&self.config)
    }

    /// What the status says of the plugin.
    fn plugin(&self) -> Result<Value, Failed> {
        plugin_of(&self.config, "counts")
    }

    fn longest_standstill(&self) -> Result<f64, Failed> {
        let seconds = self.status()?["daemon"]["longest_standstill_seconds"].as_f64();
        seconds.ok_or_else(|| Failed::from("the status does not say how long capture stood still"))
    }

    fn counted(&self) -> Result<Counted, Failed> {
        let bytes = fs::read(&self.output)?;
        let number = |at: usize| -> Result<u64, Failed> {
            let bytes =
                bytes.get(at..at + 8).ok_or("a document of a counting plugin has 24 bytes")?;
            Ok(u64::from_le_bytes(bytes.try_into()?))
        };
        Ok(Counted { events: number(0)?, last: number(8)?, gaps: number(16)? })
    }
}

/// Events a second that a flood is to be.
const FLOOD_PER_SECOND: u64 = 200_000;
/// It looks for its end after so many: `TURN` in `flood.c`.
const FLOOD_TURN: u64 = 256;
/// Those that there have to be on a machine that does other things at the same time.
const LEAST_PER_SECOND: u64 = 10_000;

/// The program that floods, compiled once.
fn flooder() -> &'static Result<PathBuf, String> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PROGRAM.get_or_init(|| program::FLOOD.make().map_err(|error| error.to_string()))
}

fn lacks_flood() -> Option<&'static str> {
    machine::lacks_for_capture().or_else(|| flooder().as_ref().err().map(String::as_str))
}

/// How long capture may stand still while plugins are swapped.
const STANDSTILL: f64 = 0.005;
/// How long the flood lasts before: about as long as the swaps take.
const WITHOUT_SWAPS: Duration = Duration::from_secs(4);

/// While a container floods the daemon, a plugin is swapped 200 times: its versions together are handed each
/// event once and in order, capture does not stand still for it, and the memory is as it was.
fn under_a_flood() -> Outcome {
    let mut seen = Vec::new();
    // A thread without a processor holds up those that wait for it, and capture may be one of them: a busy
    // machine makes it longer, swaps or not.
    for _ in 0..5 {
        let standstill = standstill_under_a_flood()?;
        if standstill.with_swaps < STANDSTILL || standstill.with_swaps <= standstill.before {
            return Ok(());
        }
        seen.push(standstill);
    }
    Err(format!("capture stood still longer while plugins were swapped: {seen:?}").into())
}

/// The longest that capture stood still, in seconds.
#[derive(Debug)]
struct Standstill {
    before: f64,
    with_swaps: f64,
}

fn standstill_under_a_flood() -> Result<Standstill, Failed> {
    let swaps = 200 / slowness();
    // What stays of the first swaps, such as what the allocator keeps, is there from then on.
    let settled = swaps / 4;
    let pod = Pod::new("swap-flood")?;
    let program = flooder().as_ref().map_err(String::clone)?;
    let app = pod.container("app").folder("/flood").copy(program, "/bin/flood");
    let mut app = worker(app, &format!("/bin/flood {FLOOD_PER_SECOND}")).start()?;
    let swapped = Swapped::for_pod(&pod)?;
    let daemon = swapped.config.start()?;
    let versions = [counting_component(0, &[])?, counting_component(1, &[])?];
    app.tell("go")?;
    thread::sleep(WITHOUT_SWAPS);
    let before = swapped.longest_standstill()?;
    let mut memory = 0;
    for swap in 1..=swaps {
        let (code, said) = swapped.reload(&versions[swap as usize % 2])?;
        expect(format!("swap {swap}: {said}"), code == Some(0))?;
        if swap == settled {
            memory = memory_of(&swapped.status()?)?;
        }
    }
    let status = swapped.status()?;
    fs::write(app.root().join("stop"), "")?;
    let asked = hear_numbers(&app, "asked")?;
    app.hear("done")?;
    let plugin = swapped.plugin()?;
    // What looks at the file may have been there first.
    let swapped_in_all = plugin["swaps"].as_u64().unwrap_or(0);
    expect(format!("{swapped_in_all} swaps"), swapped_in_all >= u64::from(swaps))?;
    expect_eq("swaps that failed", &plugin["failed_swaps"], &json!(0))?;
    let at_last = memory_of(&status)?;
    expect(
        format!("memory is as it was: {memory} bytes after some swaps, {at_last} after all"),
        at_last < memory + (16 << 20),
    )?;
    let with_swaps = swapped.longest_standstill()?;
    let report = let_end(&swapped, daemon, &app)?;
    let entry = report.container(&app)?;
    // Beside what it asked for, it looked for its end, and there were a shell and two programs.
    let looks = asked[0] / FLOOD_TURN + 1;
    let others = entry.counter("received").checked_sub(asked[0] + looks);
    let said = format!("the kernel saw {} events, {others:?} too many", entry.counter("received"));
    expect(said, others.is_some_and(|others| others < 100))?;
    let per_second = |events: u64| events * 1_000_000_000 / asked[1].max(1);
    let (made, admitted) = (per_second(asked[0]), per_second(entry.counter("admitted")));
    eprintln!(
        "{swaps} swaps: {} events, {made} a second made, {admitted} a second admitted; capture stood still \
         {with_swaps} s at most, before the swaps {before} s",
        asked[0]
    );
    let least = LEAST_PER_SECOND / u64::from(slowness());
    expect(format!("{admitted} events a second"), admitted >= least)?;
    Ok(Standstill { before, with_swaps })
}

/// Ends the daemon. The plugin was handed every event of the container once, in order. Gives the last report.
fn let_end(swapped: &Swapped, daemon: Daemon<'_>, app: &Container) -> Result<Report, Failed> {
    expect_eq("dropped", &swapped.plugin()?["dropped"], &json!(0))?;
    let report = last_report(&swapped.config, daemon)?;
    let entry = report.container(app)?;
    let counted = swapped.counted()?;
    expect_eq("events that were not the next one", &counted.gaps, &0)?;
    expect_eq("the number of the last event", &counted.last, &counted.events)?;
    // Beside what the container did, the plugin is told of its start.
    expect_eq("events", &counted.events, &(entry.counter("admitted") + 1))?;
    Ok(report)
}

/// The memory that the daemon has, in bytes.
fn memory_of(status: &Value) -> Result<u64, Failed> {
    let bytes = status["daemon"]["resident_bytes"].as_u64();
    bytes.ok_or_else(|| Failed::from("the status does not say how much memory the daemon has"))
}

/// Every event is a line of the file once, in order, however often the plugin was swapped, and also where the
/// file was moved away meanwhile.
fn swapped_lines() -> Outcome {
    let pod = Pod::new("swap-lines")?;
    let program = flooder().as_ref().map_err(String::clone)?;
    let app = pod.container("app").folder("/flood").copy(program, "/bin/flood");
    // As many as lines can be written of on a machine that does other things at the same time.
    let mut app = worker(app, &format!("/bin/flood {LEAST_PER_SECOND}")).start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let (lines, moved) = (config.folder().join("events.jsonl"), config.folder().join("old.jsonl"));
    let toml = format!(
        "[[plugin]]\nname = \"pipe\"\nsource = \"builtin:jsonl\"\n\
         [plugin.outputs]\nevents = {{ lines = '{}' }}\n\
         [plugin.limits]\ncall = \"{}\"\nqueue = 400000\n",
        lines.display(),
        call_limit()
    );
    let config = config.more_toml(&toml);
    let daemon = config.start()?;
    app.tell("go")?;
    for swap in 1..=20 {
        let (code, said) = reload(&config, "pipe")?;
        expect(format!("swap {swap}: {said}"), code == Some(0))?;
        if swap == 10 {
            fs::rename(&lines, &moved)?;
        }
    }
    fs::write(app.root().join("stop"), "")?;
    let asked = hear_numbers(&app, "asked")?[0];
    last_report(&config, daemon)?;
    let text = fs::read_to_string(&moved)? + &fs::read_to_string(&lines)?;
    let mut events = 0_u64;
    for line in text.lines() {
        let event: Value = serde_json::from_str(line)?;
        events += 1;
        expect(format!("line {events} is that event: {line}"), event["sequence"] == events)?;
    }
    expect(format!("{events} events, of which {asked} are of the flood"), events > asked)?;
    expect("the new file has some", fs::metadata(&lines)?.len() > 0)
}

/// Versions that cannot take over: the one that runs goes on with what it knows, and the status says why.
fn bad_versions() -> Outcome {
    let pod = Pod::new("swap-bad")?;
    let app = pod.container("app").file("/etc/a", "", 0o644).file("/etc/b", "", 0o644);
    let mut app = worker(app, "cat /etc/a; echo first; read go; cat /etc/b").start()?;
    let swapped = Swapped::for_pod(&pod)?;
    let daemon = swapped.config.start()?;
    app.tell("go")?;
    app.hear("first")?;
    let whole = counting_component(1, &[])?;
    let for_ever = "(loop $again (br $again)) (unreachable)";
    // `err` of an empty sentence.
    let refuses = "(i32.store8 (i32.const 1024) (i32.const 1)) (return (i32.const 1024))";
    let bad: [(Vec<u8>, &str); 8] = [
        (b"\x7fELF".to_vec(), "is not WebAssembly"),
        (whole[..whole.len() / 2].to_vec(), "damaged"),
        (Vec::new(), "is not WebAssembly"),
        (counting_component(2, &[("start", for_ever)])?, "took longer than its limit"),
        (filter_component(9, None)?, "is a filter, and the plugin that runs is a reporter"),
        (
            Guest { on_batch: OK, ..FIRST }.component_for("0.9.0")?,
            "built for whodunit:plugin@0.9.0",
        ),
        (counting_component(2, &[("restore", "(unreachable)")])?, "it trapped"),
        (counting_component(2, &[("restore", refuses)])?, "does not take its state"),
    ];
    for (number, (component, words)) in bad.iter().enumerate() {
        let (code, said) = swapped.reload(component)?;
        expect(format!("a failure with {words:?}: {said}"), code == Some(1))?;
        let plugin = swapped.plugin()?;
        let failure = plugin["last_swap_failure"].as_str().unwrap_or_default();
        expect(format!("{words:?} is in the status: {failure}"), failure.contains(words))?;
        // What looks at the file may have tried it, too.
        let failed = plugin["failed_swaps"].as_u64().unwrap_or(0);
        expect(format!("{failed} swaps failed"), failed > number as u64)?;
        expect_eq("swaps", &plugin["swaps"], &json!(0))?;
        expect_eq("state", &plugin["state"], &json!("running"))?;
    }
    let_work(&mut app)?;
    let_end(&swapped, daemon, &app).map(drop)
}

/// What `plugin shadow` said: its exit code, and its whole output.
type Said = (Option<i32>, String);

/// Runs a component beside a plugin with these arguments, and has something done as soon as the status shows it.
fn run_beside(
    config: &DaemonConfig,
    (plugin, component): (&str, &[u8]),
    arguments: &[&str],
    meanwhile: impl FnOnce() -> Outcome,
) -> Result<Said, Failed> {
    let other = config.folder().join("other.wasm");
    fs::write(&other, component)?;
    let mut command = Command::new(binary()?);
    command.args(["plugin", "shadow", plugin]).arg(&other).args(arguments);
    command.arg("--state-dir").arg(config.state_dir());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let runs = wait_for(PATIENCE, || {
        plugin_of(config, plugin).ok().filter(|plugin| plugin["beside_sha256"].is_string())
    });
    let done = runs.is_some().then(meanwhile);
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    done.ok_or_else(|| Failed::from(format!("it is not in the status: {said}")))??;
    Ok((output.status.code(), said))
}

impl Swapped {
    /// Runs a component beside the plugin while a worker does a part of its work.
    fn beside(
        &self,
        component: &[u8],
        more: &[&str],
        app: &mut Container,
        heard: &str,
    ) -> Result<Said, Failed> {
        let arguments = [&["--for", "3s"], more].concat();
        run_beside(&self.config, ("counts", component), &arguments, || let_do(app, heard))
    }
}

/// Lets a worker do a part of its work.
fn let_do(app: &mut Container, heard: &str) -> Outcome {
    app.tell("go")?;
    Ok(app.hear(heard)?)
}

/// Versions that run beside the one that runs: one that differs, one that traps, and one that is as good, which
/// takes over. Each event is counted once all the while.
fn beside() -> Outcome {
    let pod = Pod::new("swap-beside")?;
    let files = ["/etc/a", "/etc/b", "/etc/c", "/etc/d"];
    let app = files.iter().fold(pod.container("app"), |app, file| app.file(file, "", 0o644));
    let script = "cat /etc/a; echo first; read go; cat /etc/b; echo second; read go; cat /etc/c; \
        echo third; read go; cat /etc/d";
    let mut app = worker(app, script).start()?;
    let swapped = Swapped::for_pod(&pod)?;
    let daemon = swapped.config.start()?;
    // It says that the numbers had gaps before its time.
    let gaps = "(memory.copy (i32.const 3000) (local.get 0) (i32.const 24))
        (i64.store (i32.const 3016) (i64.const 5)) (return (i32.const 1024))";
    let differs = counting_component(2, &[("restore", gaps)])?;
    let (code, said) = swapped.beside(&differs, &["--promote"], &mut app, "first")?;
    expect_eq(&format!("exit code of one that differs, which said {said}"), &code, &Some(1))?;
    for words in ["output report: different", "byte 16: 24 bytes -> 24 bytes", "not promoted"] {
        expect(format!("it says {words:?}: {said}"), said.contains(words))?;
    }
    let traps = counting_component(3, &[("restore", "(unreachable)")])?;
    let (code, said) = swapped.beside(&traps, &[], &mut app, "second")?;
    expect_eq(&format!("exit code of one that traps, which said {said}"), &code, &Some(1))?;
    expect(said.clone(), said.contains("it failed: it trapped"))?;
    let before = swapped.plugin()?;
    expect_eq("swaps", &before["swaps"], &json!(0))?;
    expect_eq("instance", &before["instance"], &json!(1))?;
    expect_eq("faults", &before["faults"], &json!({}))?;
    expect_eq("beside", &before["beside_sha256"], &Value::Null)?;

    let (code, said) =
        swapped.beside(&counting_component(1, &[])?, &["--promote"], &mut app, "third")?;
    expect_eq(&format!("exit code of one that is as good, which said {said}"), &code, &Some(0))?;
    for words in ["output report: the same", "0 missed", "promoted: "] {
        expect(format!("it says {words:?}: {said}"), said.contains(words))?;
    }
    expect_eq("swaps", &swapped.plugin()?["swaps"], &json!(1))?;
    let_work(&mut app)?;
    let_end(&swapped, daemon, &app).map(drop)
}

/// What both versions said, with the exit code of that.
fn expect_said((code, said): Said, expected: i32) -> Result<Value, Failed> {
    expect_eq(&format!("exit code where it said {said}"), &code, &Some(expected))?;
    Ok(serde_json::from_str(&said)?)
}

/// A filter beside another: one that traps is ended, one that drops other paths is shown, and takes over where that
/// is accepted. Until then the one that runs judges alone, and nothing is lost.
fn beside_a_filter() -> Outcome {
    let pod = Pod::new("beside-filter")?;
    let files = [
        "/etc/trap-1",
        "/etc/drop",
        "/etc/other",
        "/etc/keep-it",
        "/etc/dro3",
        "/etc/othe3",
        "/etc/dro4",
        "/etc/othe4",
    ];
    let app = files.iter().fold(pod.container("app"), |app, file| app.file(file, "", 0o644));
    let script = "cat /etc/trap-1; echo first; read go; cat /etc/drop /etc/other /etc/keep-it; echo second; \
        read go; cat /etc/dro3 /etc/othe3; echo third; read go; cat /etc/dro4 /etc/othe4";
    let mut app = worker(app, script).start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let component = config.folder().join("filter.wasm");
    fs::write(&component, filter_component(9, None)?)?;
    let config = config.more_toml(&format!(
        "[[plugin]]\nname = \"filter\"\nsource = '{}'\n[plugin.limits]\ncall = \"{}\"\n",
        component.display(),
        call_limit()
    ));
    let daemon = config.start()?;
    let traps = filter_component(9, Some(11))?;
    let other = filter_component(10, None)?;

    // It is ended long before its time.
    let arguments = ["--for", "1h", "--output", "json"];
    let said = run_beside(&config, ("filter", &traps), &arguments, || let_do(&mut app, "first"))?;
    let trapped = expect_said(said, 1)?;
    expect_eq("faults", &trapped["faults"], &json!({ "trap": 1 }))?;
    let reason = trapped["last_error"].as_str().unwrap_or_default();
    expect(reason.to_owned(), reason.contains("it trapped"))?;

    let arguments = ["--for", "3s", "--output", "json", "--promote"];
    let said = run_beside(&config, ("filter", &other), &arguments, || let_do(&mut app, "second"))?;
    let differs = expect_said(said, 1)?;
    let sample = |path: &str, running: &str, shadow: &str| {
        let same = |sample: &Value| {
            sample["kind"] == "open" && sample["path"] == path && sample["container"].is_string()
        };
        let judgements = differs["judgements"]["different"].as_array();
        let fits = |it: &&Value| it["running"] == running && it["shadow"] == shadow;
        let found = judgements.into_iter().flatten().find(fits);
        let one = found.is_some_and(|it| it["events"] == 1 && same(&it["samples"][0]));
        expect(format!("{running} -> {shadow} once, of {path}: {differs:#}"), one)
    };
    sample("/etc/drop", "drop", "keep")?;
    sample("/etc/other", "keep", "drop")?;
    // The program was seen before: the kernel absorbs it.
    expect_eq("compared", &differs["judgements"]["compared"], &json!(3))?;
    expect_eq("alike", &differs["judgements"]["alike"], &json!(1))?;
    expect_eq("missed", &differs["missed"], &json!(0))?;
    expect_eq("why not", &differs["refusal"], &json!("it judges 2 of 3 events otherwise"))?;

    let arguments = ["--for", "3s", "--promote", "--accept-differences"];
    let (code, said) =
        run_beside(&config, ("filter", &other), &arguments, || let_do(&mut app, "third"))?;
    expect_eq(&format!("exit code where it said {said}"), &code, &Some(0))?;
    for words in ["2 events judged by both: 0 alike, 2 otherwise", "promoted: ", "0 missed"] {
        expect(format!("it says {words:?}: {said}"), said.contains(words))?;
    }
    let_work(&mut app)?;
    let plugin = plugin_of(&config, "filter")?;
    expect_eq("faults", &plugin["faults"], &json!({}))?;
    expect_eq("swaps", &plugin["swaps"], &json!(1))?;
    expect_eq("beside", &plugin["beside_sha256"], &Value::Null)?;
    let report = last_report(&config, daemon)?;
    let entry = report.container(&app)?;
    entry.expect_files(&[
        "/bin/busybox",
        "/etc/dro4",
        "/etc/keep-it",
        "/etc/othe3",
        "/etc/other",
        "/etc/trap-1",
    ])?;
    entry.expect_nothing_lost()?;
    expect_eq("filtered", &entry.counter("filtered"), &3)
}

/// An explainer beside another: another verdict is shown, and goes out once it took over. One that traps is ended, and
/// every death has its explanation.
fn beside_an_explainer() -> Outcome {
    let pod = Pod::new("beside-explainer")?;
    let script =
        "sh -c 'exit 3'; echo first; read go; sh -c 'exit 4'; echo second; read go; sh -c 'exit 5'";
    let mut app = worker(pod.container("app"), script).start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let daemon = config.start()?;
    let explained = |code: u8| {
        let what = format!("the death with the code {code}");
        let death = await_death(&config, &what, |death| death["status"]["code"] == code)?;
        Ok::<Value, Failed>(death.explanation["verdict"].clone())
    };
    let other = explainer_component("trial-verdict", "")?;
    let traps = explainer_component("trial-verdict", "(unreachable)")?;

    let arguments = ["--for", "1h", "--output", "json"];
    let said =
        run_beside(&config, ("death-explainer", &traps), &arguments, || let_do(&mut app, "first"))?;
    let trapped = expect_said(said, 1)?;
    expect_eq("faults", &trapped["faults"], &json!({ "trap": 1 }))?;
    expect_eq("missed", &trapped["missed"], &json!(1))?;
    expect_eq("verdict of the first", &explained(3)?, &json!("application-error"))?;

    let arguments = ["--for", "10s", "--output", "json", "--promote", "--accept-differences"];
    let mut verdict = Value::Null;
    let said = run_beside(&config, ("death-explainer", &other), &arguments, || {
        let_do(&mut app, "second")?;
        verdict = explained(4)?;
        Ok(())
    })?;
    let promoted = expect_said(said, 0)?;
    expect_eq("verdict of the second", &verdict, &json!("application-error"))?;
    let compared = &promoted["explanations"];
    expect_eq("deaths compared", &compared["compared"], &json!(1))?;
    expect_eq("with another verdict", &compared["different"]["verdict"], &json!(1))?;
    let differences = compared["different"]["samples"][0]["differences"].as_array();
    let differences = differences.ok_or_else(|| format!("a difference: {promoted:#}"))?;
    let at = |place: &str| differences.iter().find(|it| it["place"] == place);
    for place in ["verdict", "headline", "confidence", "explanation"] {
        expect(format!("the {place} differs: {promoted:#}"), at(place).is_some())?;
    }
    let sides = at("verdict").map(|it| [it["running"].clone(), it["shadow"].clone()]);
    let expected = [json!("\"application-error\""), json!("\"trial-verdict\"")];
    expect_eq("verdicts", &sides, &Some(expected))?;
    expect_eq("promoted", &promoted["promoted"], &json!(true))?;

    let_work(&mut app)?;
    expect_eq("verdict of the third", &explained(5)?, &json!("trial-verdict"))?;
    let plugin = plugin_of(&config, "death-explainer")?;
    expect_eq("faults", &plugin["faults"], &json!({}))?;
    expect_eq("swaps", &plugin["swaps"], &json!(1))?;
    expect_eq("beside", &plugin["beside_sha256"], &Value::Null)?;
    let exit = daemon.stop()?;
    expect_eq("exit code", &exit.code(), &Some(0))
}

fn filtered() -> Outcome {
    let pod = Pod::new("filtered")?;
    let app = pod.container("app").file("/etc/drop", "", 0o644).file("/etc/keep-it", "", 0o644);
    let mut app = worker(app, "cat /etc/drop /etc/keep-it /etc/drop /etc/keep-it").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let component = config.folder().join("filter.wasm");
    fs::write(&component, filter_component(9, None)?)?;
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
