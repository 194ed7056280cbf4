//! Every road to a file, gone by programs of three kinds: of glibc with its loader, static of musl, and
//! 32-bit. The program tells what it did (`tests/programs/roads.c`), and the events must be exactly that.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};
use rustix::process::Signal;
use serde_json::Value;
use whodunit_containers::condition::slowness;
use whodunit_containers::daemon::{call_limit, read_report};
use whodunit_containers::{ContainerBuilder, DaemonConfig, Pod, program};

use crate::discovery::{let_work, worker};
use crate::report::{Entry, Report, expect, expect_eq, last_report};
use crate::{Outcome, about_capture, coverage, exact, machine};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = Kind::ALL
        .into_iter()
        .map(|kind| {
            let name = format!("roads::a_{}_program_is_seen_on_every_road", kind.name());
            Trial::ignorable_test(name, move || {
                match machine::lacks_for_capture().or_else(|| kind.program().err()) {
                    Some(reason) => Ok(Completion::ignored_with(reason)),
                    None => every_road(kind).map(|()| Completion::Completed),
                }
            })
        })
        .collect();
    trials.push(about_capture("roads::a_script_is_seen_with_its_interpreter", script));
    trials.push(about_capture(
        "roads::a_script_of_a_script_is_seen_with_everything_in_between",
        script_of_a_script,
    ));
    trials.push(about_capture(
        "roads::without_the_exact_tier_an_exec_tells_what_it_did",
        executed_on_base,
    ));
    trials.push(about_capture("roads::a_flood_is_throttled_and_its_loss_is_exact", throttled));
    trials.push(about_capture("roads::what_many_do_at_once_is_seen_or_counted", || crowd("auto")));
    trials.push(about_capture("roads::a_second_program_counts_nothing_twice", || crowd("always")));
    trials.push(about_capture("roads::a_flood_takes_nothing_from_its_neighbour", flood));
    trials
}

/// A kind of program.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Glibc,
    Musl,
    Compat,
}

/// What the dynamic program needs, besides itself.
const LIBRARIES: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"];

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Glibc, Kind::Musl, Kind::Compat];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Glibc => "dynamic_glibc",
            Kind::Musl => "static_musl",
            Kind::Compat => "32_bit",
        }
    }

    /// The program of this kind, compiled once. An error says why there is none.
    pub(crate) fn program(self) -> Result<&'static Path, &'static str> {
        static PROGRAMS: [OnceLock<Result<PathBuf, String>>; 3] = [const { OnceLock::new() }; 3];
        let program = match self {
            Kind::Glibc => program::ROADS_GLIBC,
            Kind::Musl => program::ROADS_MUSL,
            Kind::Compat => program::ROADS_COMPAT,
        };
        let made = PROGRAMS[self as usize]
            .get_or_init(|| program.make().map_err(|error| error.to_string()));
        made.as_deref().map_err(String::as_str)
    }

    /// The calls of the table in the documents that programs of this kind can make.
    fn calls(self) -> BTreeSet<&'static str> {
        let column = if matches!(self, Kind::Compat) { 4 } else { 3 };
        let rows = coverage::calls().filter(|row| row.get(column) == Some(&"seen"));
        rows.map(|row| row[0].trim_matches('`')).collect()
    }

    fn describe(self, container: ContainerBuilder, program: &Path) -> ContainerBuilder {
        let container = container
            .copy(program, "/roads")
            .file("/begin", "", 0o644)
            .file("/end", "", 0o644)
            .capabilities(&CAPABILITIES)
            .program(&["/roads"]);
        match self {
            Kind::Glibc => with_libraries(container),
            Kind::Musl | Kind::Compat => container,
        }
    }
}

/// Adds what a dynamic program needs.
pub(crate) fn with_libraries(container: ContainerBuilder) -> ContainerBuilder {
    LIBRARIES.iter().fold(container, |container, library| {
        // The library itself, whatever links lead to it here.
        let file = std::fs::canonicalize(library).unwrap_or_else(|_| library.into());
        container.copy(file, library)
    })
}

/// What the roads need.
const CAPABILITIES: [&str; 8] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
];

/// A daemon with an event log beside its report, which is read when the daemon has ended.
pub(crate) struct LoggedDaemon {
    pub(crate) config: DaemonConfig,
    pub(crate) log: PathBuf,
}

impl LoggedDaemon {
    pub(crate) fn for_pod(pod: &Pod) -> Result<LoggedDaemon, Failed> {
        LoggedDaemon::of(DaemonConfig::for_pod(pod)?)
    }

    /// A daemon of the tier of that name.
    pub(crate) fn of_tier(pod: &Pod, tier: &str) -> Result<LoggedDaemon, Failed> {
        LoggedDaemon::of_capture(pod, &format!("tier = {tier:?}"))
    }

    /// A daemon with these keys of `[capture]`.
    pub(crate) fn of_capture(pod: &Pod, keys: &str) -> Result<LoggedDaemon, Failed> {
        LoggedDaemon::of(DaemonConfig::for_pod(pod)?.more_toml(&format!("[capture]\n{keys}")))
    }

    fn of(config: DaemonConfig) -> Result<LoggedDaemon, Failed> {
        let log = config.folder().join("events.jsonl");
        let config = config.more_toml(&format!(
            "[[plugin]]\nname = \"events\"\nsource = \"builtin:event-log\"\n\
             limits = {{ call = {:?} }}\n\
             [plugin.outputs]\nlog = {{ file = {:?} }}",
            call_limit(),
            log.display().to_string()
        ));
        Ok(LoggedDaemon { config, log })
    }

    /// The events, in their order. None may be missing.
    pub(crate) fn events(&self) -> Result<Vec<Value>, Failed> {
        let text = std::fs::read_to_string(&self.log)?;
        let mut lines = text.lines().map(serde_json::from_str::<Value>);
        let head = lines.next().ok_or("the log is empty")??;
        expect_eq("lines left out", &head["left_out"].as_u64(), &Some(0))?;
        expect_eq("events dropped", &head["dropped"].as_u64(), &Some(0))?;
        Ok(lines.collect::<Result<_, _>>()?)
    }
}

/// What a program says that it did, and the events of that.
pub(crate) struct Gone {
    pub(crate) said: String,
    pub(crate) events: Vec<Value>,
    /// Calls of anybody that the kernel kept from the programs.
    pub(crate) kept: u64,
}

/// Goes every road, under a daemon of the tier of that name.
pub(crate) fn go(kind: Kind, tier: &str) -> Result<Gone, Failed> {
    let program = kind.program()?;
    let pod = Pod::new("roads")?;
    let mut container = kind.describe(pod.container("app"), program).start()?;
    container.hear("ready")?;
    let logged = LoggedDaemon::of_tier(&pod, tier)?;
    let daemon = logged.config.start()?;
    container.tell("go")?;
    container.hear("done")?;
    let exit = daemon.stop()?;
    expect_eq("the daemon's status", &exit.code(), &Some(0))?;
    let events = between(logged.events()?)?;
    let report = Report::check_last(read_report(logged.config.report_path())?)?;
    lost_as_interrupted(&report.container(&container)?)?;
    Ok(Gone { said: container.stdout(), events, kept: report.lost("interrupted") })
}

/// The events from the opening of `/begin` to that of `/end`.
pub(crate) fn between(mut events: Vec<Value>) -> Result<Vec<Value>, Failed> {
    let at = |path: &str| {
        let found = events.iter().position(|event| event["path"] == path);
        found.ok_or_else(|| Failed::from(format!("nobody opened {path}: {events:#?}")))
    };
    let (begin, end) = (at("/begin")?, at("/end")?);
    events.truncate(end);
    Ok(events.split_off(begin + 1))
}

fn every_road(kind: Kind) -> Outcome {
    let Gone { said, events: between, kept } = go(kind, "auto")?;
    let seen: BTreeSet<String> = between.iter().filter(|event| is_told(event)).map(line).collect();
    let told: BTreeSet<String> =
        said.lines().filter(|line| line.contains('\t')).map(str::to_owned).collect();
    let calls: BTreeSet<&str> =
        said.lines().filter_map(|line| line.strip_prefix("call ")).collect();
    expect_eq("calls that the program makes, beside those of the table", &calls, &kind.calls())?;
    let more: Vec<_> = seen.difference(&told).collect();
    let less: Vec<_> = told.difference(&seen).collect();
    expect(
        format!(
            "events are what was done, but for {kept}. Not done: {more:#?}; not seen: {less:#?}"
        ),
        more.is_empty() && less.len() as u64 <= kept,
    )?;
    for event in between.iter().filter(|event| is_told(event)) {
        let flagged = has_flag(event, "compat");
        let expected = matches!(kind, Kind::Compat) || event["path"] == "/w/int80";
        expect_eq(&format!("the flag `compat` of {event:#}"), &flagged, &expected)?;
    }
    Ok(())
}

/// Whether an event is one that the program tells. Links that were crossed are found by the daemon.
pub(crate) fn is_told(event: &Value) -> bool {
    event["kind"] != "follow"
}

pub(crate) fn has_flag(event: &Value, flag: &str) -> bool {
    event["flags"].as_array().is_some_and(|flags| flags.iter().any(|found| found == flag))
}

/// An event as the program tells it.
pub(crate) fn line(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    let outcome = match event["errno"].as_u64() {
        Some(errno) => errno.to_string(),
        None => text("outcome").to_owned(),
    };
    let second = if has_flag(event, "destination") { "destination" } else { "" };
    let (requested, path) = (plain(text("requested")), plain(text("path")));
    format!("{}\t{outcome}\t{requested}\t{path}\t{second}", text("kind"))
}

/// A path of the log in the program's writing: each byte that is no visible character of ASCII as
/// `\xNN`.
fn plain(escaped: &str) -> String {
    let mut plain = String::new();
    let mut put = |byte: u8| {
        if byte.is_ascii_graphic() && byte != b'\\' {
            plain.push(char::from(byte));
        } else {
            write!(plain, "\\x{byte:02x}").expect("a string takes any text");
        }
    };
    let mut rest = escaped.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'\\', [b'\\', after @ ..]) => {
                put(b'\\');
                after
            }
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap_or_default();
                put(u8::from_str_radix(digits, 16).unwrap_or_default());
                after
            }
            (byte, after) => {
                put(*byte);
                after
            }
        };
    }
    plain
}

fn script() -> Outcome {
    let pod = Pod::new("script")?;
    let container = pod.container("app").file("/srv/job", "#!/bin/sh\ntrue\n", 0o755);
    expect_executed(
        &pod,
        container,
        &[("exec", "/srv/job"), ("load", "/bin/busybox"), ("open", "/srv/job")],
        &["/bin/busybox"],
    )
}

/// The kernel opens the scripts between the first and the last interpreter without a call of anybody, so
/// the daemon looks for them in the container's files.
fn script_of_a_script() -> Outcome {
    let pod = Pod::new("scripts")?;
    let container = pod
        .container("app")
        .file("/srv/job", "#!/srv/between\n", 0o755)
        .file("/srv/between", "#!/srv/last -e\n", 0o755)
        .file("/srv/last", "#!/bin/sh\ntrue\n", 0o755);
    expect_executed(
        &pod,
        container,
        &[
            ("exec", "/srv/job"),
            ("load", "/srv/between"),
            ("load", "/srv/last"),
            ("load", "/bin/busybox"),
            ("open", "/srv/last"),
        ],
        &["/srv/between", "/srv/last", "/bin/busybox"],
    )
}

/// Which interpreter was missing or refused, only the exact tier can tell.
fn executed_on_base() -> Outcome {
    let pod = Pod::new("executed")?;
    let app = pod
        .container("app")
        .file("/srv/broken", "#!/srv/absent\n", 0o755)
        .file("/srv/shut", "#!/srv/data\n", 0o755)
        .file("/srv/data", "", 0o644)
        .symlink("/srv/true", "../bin/busybox");
    let mut app = worker(app, "/srv/true; /srv/broken; /srv/shut").start()?;
    let logged = LoggedDaemon::of_tier(&pod, "base")?;
    let daemon = logged.config.start()?;
    let_work(&mut app)?;
    let exit = daemon.stop()?;
    expect_eq("the daemon's status", &exit.code(), &Some(0))?;
    let expected = [
        ["exec", "used", "/srv/true", "/bin/busybox"],
        ["exec", "missing", "/srv/broken", "/srv/broken"],
        ["exec", "refused", "/srv/shut", "/srv/shut"],
    ];
    expect_eq(
        "programs and interpreters, each once, in their order",
        &exact::programs(&logged.events()?),
        &expected.map(|event| event.map(str::to_owned)).to_vec(),
    )
}

/// Executes `/srv/job`, and expects exactly these kinds and paths among what is executed, loaded and opened, and that
/// these were found in the container's files, the last one once more.
fn expect_executed(
    pod: &Pod,
    container: ContainerBuilder,
    expected: &[(&str, &str)],
    inferred: &[&str],
) -> Outcome {
    let container = container.shell("read stay").start()?;
    let logged = LoggedDaemon::of_tier(pod, "base")?;
    let daemon = logged.config.start()?;
    let output = container.exec(&["/srv/job"])?;
    expect_eq("status", &output.status.code(), &Some(0))?;
    let exit = daemon.stop()?;
    expect_eq("the daemon's status", &exit.code(), &Some(0))?;
    let events = logged.events()?;
    let seen: BTreeSet<(&str, &str)> = events
        .iter()
        .filter(|event| is_told(event) && !has_flag(event, "setup"))
        .filter(|event| ["exec", "load", "open"].map(Value::from).contains(&event["kind"]))
        .filter_map(|event| Some((event["kind"].as_str()?, event["path"].as_str()?)))
        .collect();
    expect_eq("what was executed, loaded and opened", &seen, &expected.iter().copied().collect())?;
    let found: Vec<&str> = events
        .iter()
        .filter(|event| event["kind"] == "load" && has_flag(event, "inferred"))
        .filter_map(|event| event["path"].as_str())
        .collect();
    expect_eq("interpreters that were found afterwards", &found, &inferred.to_vec())
}

/// More than half of the ring, and less than all of it.
const HALF_A_RING: usize = 1_200;

/// While nobody empties the ring, a flood fills half of it, and a neighbour has the other half.
fn throttled() -> Outcome {
    let size = HALF_A_RING;
    let pod = Pod::new("throttled")?;
    let flood = pod.container("flood").folder("/flood");
    let work = format!("i=0; while [ $i -lt {size} ]; do : > /flood/$i; i=$((i+1)); done");
    let mut flood = worker(flood, &work).start()?;
    let files: Vec<String> = (0..12).map(|number| format!("/srv/{number:02}")).collect();
    let mut neighbour = reader(&pod, &files).start()?;

    let config = DaemonConfig::for_pod(&pod)?.more_toml("[capture]\nring = \"256KiB\"");
    let mut daemon = config.start()?;
    daemon.pause()?;
    let_work(&mut flood)?;
    let_work(&mut neighbour)?;
    daemon.signal(Signal::CONT)?;
    let id = flood.id().to_owned();
    let report =
        daemon.wait_report("the whole flood", |report| received(report, &id) == size as u64)?;
    let report = Report::check_last(report)?;

    let neighbour = report.container(&neighbour)?;
    neighbour.expect_nothing_lost()?;
    neighbour.expect_files(&files.iter().map(String::as_str).collect::<Vec<_>>())?;
    let flood = report.container(&flood)?;
    let lost = flood.number("lost_total");
    expect("the flood was throttled", lost > 0)?;
    flood.expect_lost(&[("throttled", lost)])?;
    expect_eq("files, and the loss", &(flood.number("unique_files") + lost), &(size as u64))
}

/// From Linux 6.19 on, a program may be interrupted by another process's call, which the kernel then keeps
/// from it: a second program takes it up, or it is counted, and no more than that.
fn crowd(backup: &str) -> Outcome {
    let each = 500 / slowness() as usize;
    let pod = Pod::new("crowd")?;
    let crowd = pod.container("crowd").folder("/crowd");
    let one = format!("i=0; while [ $i -lt {each} ]; do : > /crowd/$n.$i; i=$((i+1)); done");
    // No program but the shell, which opens nothing itself.
    let work = format!("for n in 1 2 3 4 5 6 7 8; do ( {one} ) & done; wait");
    let mut crowd = worker(crowd, &work).start()?;
    let config = DaemonConfig::for_pod(&pod)?.more_toml(&format!("[capture]\nbackup = {backup:?}"));
    let daemon = config.start()?;
    let_work(&mut crowd)?;
    let report = last_report(&config, daemon)?;
    let all = (8 * each) as u64;
    let crowd = report.container(&crowd)?;
    let lost = lost_as_interrupted(&crowd)?;
    // A shell in the background opens what it reads from.
    let (received, opened) = (crowd.counter("received"), all + 8);
    let kept = report.lost("interrupted");
    expect(
        format!("{received} counted, and {kept} that the kernel kept, are {opened}"),
        received <= opened && received + kept >= opened,
    )?;
    let told = crowd.count_below("files", "/crowd/") + lost;
    // What the kernel kept from the programs may be anybody's.
    expect(
        format!("{told} files and losses, and {kept} that the kernel kept, are {all}"),
        told <= all && told + kept >= all,
    )
}

/// What a container lost, all of it for the one reason that nobody can help.
pub(crate) fn lost_as_interrupted(container: &Entry<'_>) -> Result<u64, Failed> {
    let lost = container.number("lost_total");
    let interrupted: &[_] = if lost > 0 { &[("interrupted", lost)] } else { &[] };
    container.expect_lost(interrupted)?;
    Ok(lost)
}

/// What a report says of the accesses of a container.
fn received(report: &Value, id: &str) -> u64 {
    let mut containers = report["containers"].as_array().into_iter().flatten();
    let container = containers.find(|container| container["name"] == id);
    container.and_then(|it| it["counters"]["received"].as_u64()).unwrap_or(0)
}

/// A container that reads these files when it is told to.
fn reader(pod: &Pod, files: &[String]) -> ContainerBuilder {
    let container = pod.container("neighbour");
    let container = files.iter().fold(container, |container, file| container.file(file, "", 0o644));
    let reads: String = files.iter().map(|file| format!("read x < {file}\n")).collect();
    worker(container, &reads)
}

/// More than any ring holds. A slow machine has less time for each.
fn flood_size() -> usize {
    200_000 / slowness() as usize
}

fn flood() -> Outcome {
    let size = flood_size();
    let pod = Pod::new("flood")?;
    let flood = pod.container("flood").folder("/flood");
    let work = format!(
        "i=0; while [ $i -lt {size} ]; do : > /flood/$i; i=$((i+1)); \
         [ $i = 1000 ] && echo flooding; done"
    );
    let mut flood = worker(flood, &work).start()?;
    let files: Vec<String> = (0..100).map(|number| format!("/srv/{number:02}")).collect();
    let mut neighbour = reader(&pod, &files).start()?;

    let config = DaemonConfig::for_pod(&pod)?.interval(Duration::from_secs(2)).report_limits(
        "call = \"30s\"\nqueue = 400000\nmemory = \"512MiB\"\noutput = \"64MiB\"\n\
         [plugin.config]\nmax_files_per_container = 400000",
    );
    let mut daemon = config.start()?;
    flood.tell("go")?;
    flood.hear("flooding")?;
    let_work(&mut neighbour)?;
    flood.hear("done")?;
    // A report at rest: the last one of all has too little time for so many files.
    let id = flood.id().to_owned();
    let report =
        daemon.wait_report("the whole flood", |report| received(report, &id) == size as u64)?;
    let report = Report::check_last(report)?;
    expect_eq("events that plugins lost", &report.number("dropped_events"), &0)?;
    println!("{} calls of anybody were kept from every program", report.lost("interrupted"));

    let neighbour = report.container(&neighbour)?;
    neighbour.expect_nothing_lost()?;
    neighbour.expect_files(&files.iter().map(String::as_str).collect::<Vec<_>>())?;

    let flood = report.container(&flood)?;
    expect_eq("events of the flood", &flood.counter("received"), &(size as u64))?;
    let listed = flood.number("unique_files") + flood.number("truncated");
    expect_eq("files, and the loss", &(listed + flood.number("lost_total")), &(size as u64))
}
