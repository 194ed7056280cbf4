//! Containers that come and go by the hundreds.
//!
//! A container here is what it is to the daemon: a cgroup in a pod with a process of its own. The process moves itself there and
//! executes its program, as a runtime's does. runc itself would take the minute for its own work.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use whodunit_containers::condition::{PATIENCE, slowness, wait_until};
use whodunit_containers::{Daemon, DaemonConfig, Pod, find_program};

use crate::http::{LISTEN, address, get};
use crate::names::write_bundle;
use crate::report::{expect, expect_eq, last_report};
use crate::{Outcome, about_capture};

/// How many come and go, in which time.
const CONTAINERS: usize = 500;
const MINUTE: Duration = Duration::from_secs(60);
/// How many live at once.
const AT_ONCE: usize = 8;
/// More than the daemon remembers of those that ended, which is 1,024: what they take is taken before anything is
/// measured.
const BEFORE: usize = 1_100;
/// As many as the report keeps of those that ended.
const KEPT: usize = 100;
/// How much more memory the daemon may have afterwards. 500 containers that stayed with their names, mounts and
/// deaths took 7 MB.
const MORE_MEMORY_BYTES: u64 = 3 << 20;

pub(crate) fn trials() -> Vec<Trial> {
    vec![about_capture(
        "churn::five_hundred_containers_in_a_minute_leave_nothing_behind",
        five_hundred,
    )]
}

/// Where containers come and go.
struct Place<'a> {
    pod: &'a Pod,
    host: &'a Path,
    busybox: PathBuf,
}

/// A container, until it ends.
struct Brief {
    process: Child,
    folder: PathBuf,
}

impl Brief {
    fn end(mut self) -> Outcome {
        let status = self.process.wait()?;
        expect(
            format!("the program of {} ends in order", self.folder.display()),
            status.success(),
        )?;
        let gone = wait_until(PATIENCE, || fs::remove_dir(&self.folder).is_ok());
        expect(format!("{} can be removed", self.folder.display()), gone)
    }
}

impl Place<'_> {
    /// The file that only this container reads.
    fn file(&self, name: &str) -> PathBuf {
        self.host.join(format!("of-{name}"))
    }

    fn start(&self, name: &str) -> Result<Brief, Failed> {
        let id = format!("id-of-{name}");
        write_bundle(self.host, &id, name)?;
        let file = self.file(name);
        fs::write(&file, name)?;
        let folder = self.pod.cgroup_folder().join(&id);
        fs::create_dir(&folder)?;
        let script =
            "echo $$ > \"$0/cgroup.procs\" && exec \"$1\" sh -c 'cat \"$0\"; sleep 0.2' \"$2\"";
        let process = Command::new("/bin/sh")
            .args(["-c", script])
            .args([&folder, &self.busybox, &file])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Brief { process, folder })
    }

    /// Lets so many come and go. Looks at the report in between.
    fn churn(&self, what: &str, count: usize, mut look: impl FnMut() -> Outcome) -> Outcome {
        let mut alive = VecDeque::new();
        for index in 0..count {
            if alive.len() == AT_ONCE {
                alive.pop_front().map_or(Ok(()), Brief::end)?;
            }
            alive.push_back(self.start(&format!("{what}-{index:04}"))?);
            if index % AT_ONCE == 0 {
                look()?;
            }
        }
        alive.into_iter().try_for_each(Brief::end)
    }
}

/// Which containers have had their file in a report, by name.
#[derive(Default)]
struct Seen(BTreeMap<String, BTreeSet<String>>);

impl Seen {
    fn look(&mut self, report: &Value) {
        for list in ["containers", "ended_containers"] {
            for container in report[list].as_array().into_iter().flatten() {
                // By its id it may be until it is named.
                if container["name_source"] != "oci" {
                    continue;
                }
                let name = container["name"].as_str().unwrap_or_default().to_owned();
                let files = container["files"].as_array().into_iter().flatten();
                let own = files.filter_map(Value::as_str).filter(|file| file.contains("/of-"));
                self.0.entry(name).or_default().extend(own.map(str::to_owned));
            }
        }
    }
}

struct Measured {
    resident_bytes: u64,
    /// Every series, without its value.
    series: BTreeSet<String>,
}

fn measure(address: &str) -> Result<Measured, Failed> {
    let status = get(address, "/api/v1/status")?.json()?;
    let resident_bytes = status["daemon"]["resident_bytes"].as_u64().ok_or("no memory is told")?;
    let metrics = get(address, "/metrics")?.body;
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    let series = lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect();
    Ok(Measured { resident_bytes, series })
}

/// Waits until nothing but the neighbour is watched and has series.
fn settled(daemon: &mut Daemon<'_>, address: &str) -> Result<Measured, Failed> {
    daemon.wait_report("nobody but the neighbour", |report| {
        let nameless = |it: &Value| it["name_source"] == "id";
        let ended = report["ended_containers"].as_array();
        report["containers"].as_array().is_some_and(|all| all.len() == 1)
            && ended.is_some_and(|ended| !ended.iter().any(nameless))
    })?;
    let mut left = BTreeSet::new();
    let gone = wait_until(PATIENCE, || {
        let series = measure(address).map(|it| it.series).unwrap_or_default();
        left = series.into_iter().filter(|it| it.contains("id-of-")).collect();
        left.is_empty()
    });
    expect(format!("no series of those that are gone: {left:?}"), gone)?;
    measure(address)
}

fn five_hundred() -> Outcome {
    let pod = Pod::new("churn")?;
    let _neighbour = pod.container("neighbour").shell("read stay").start()?;
    let host = tempfile::tempdir()?;
    let busybox = find_program("busybox").ok_or("there is no busybox")?;
    let place = Place { pod: &pod, host: host.path(), busybox };
    let config = DaemonConfig::for_pod(&pod)?.host_root(host.path()).more_toml(LISTEN);
    let mut daemon = config.start()?;
    let address = address(&mut daemon)?;
    place.churn("before", BEFORE, || Ok(()))?;
    let before = settled(&mut daemon, &address)?;

    let mut seen = Seen::default();
    let begin = Instant::now();
    place.churn("job", CONTAINERS, || {
        seen.look(&daemon.report()?);
        Ok(())
    })?;
    let took = begin.elapsed();
    let after = settled(&mut daemon, &address)?;
    seen.look(&daemon.report()?);
    expect(format!("{CONTAINERS} in a minute: {took:?}"), took <= MINUTE * slowness())?;

    for index in 0..CONTAINERS {
        let name = format!("job-{index:04}");
        let own = BTreeSet::from([place.file(&name).display().to_string()]);
        expect_eq(&format!("the files of {name}"), &seen.0.get(&name), &Some(&own))?;
    }
    let new: Vec<&String> = after.series.difference(&before.series).collect();
    expect_eq("series that were not there before", &new, &Vec::new())?;
    let more = after.resident_bytes.saturating_sub(before.resident_bytes);
    println!(
        "churn: {took:?}, {} bytes before, {} after",
        before.resident_bytes, after.resident_bytes
    );
    expect(format!("{more} bytes more than before"), more <= MORE_MEMORY_BYTES)?;
    let report = last_report(&config, daemon)?;
    let forgotten = &report.0["forgotten"]["containers"];
    expect_eq("forgotten", forgotten, &Value::from(BEFORE + CONTAINERS - KEPT))?;
    expect_eq("lost", &report.number("dropped_events"), &0)
}
