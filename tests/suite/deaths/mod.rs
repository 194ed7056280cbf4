//! Claims about deaths: real processes in real containers that end in ways that the trial knows beforehand.
//!
//! What the daemon wrote is held against witnesses that it did not ask: the status that the parent was told, what the
//! memory controller counted, what the kernel log says, and what the trial itself did.

mod by_itself;
mod by_kernel;
mod by_memory;
mod by_others;
mod claim;
mod events;
mod kernel_log;
mod many;
mod outputs;
mod stops;
mod told;
mod verdicts;

use std::ops::{Index, RangeInclusive};
use std::path::PathBuf;
use std::sync::OnceLock;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use whodunit_containers::condition::{PATIENCE, wait_for};
use whodunit_containers::program::MORTAL;
use whodunit_containers::{Container, ContainerBuilder, DaemonConfig, Pod};

use crate::Outcome;
use crate::report::{expect, expect_eq};
use claim::Claim;

pub(super) fn trials() -> Vec<Trial> {
    let claims: Vec<Claim> = [
        by_itself::claims(),
        by_kernel::claims(),
        by_others::claims(),
        stops::claims(),
        by_memory::claims(),
        many::claims(),
        outputs::claims(),
        events::claims(),
        told::claims(),
        verdicts::claims(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let table = claim::about_the_table(&claims);
    claims.into_iter().map(Claim::trial).chain([table]).collect()
}

/// The program that dies, compiled once.
fn program() -> &'static Result<PathBuf, String> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PROGRAM.get_or_init(|| MORTAL.make().map_err(|error| error.to_string()))
}

/// A container whose first process dies so.
fn mortal(pod: &Pod, how: &[&str]) -> ContainerBuilder {
    let program = program().as_ref().expect("a trial without it is left out");
    let words: Vec<&str> = std::iter::once("/mortal").chain(how.iter().copied()).collect();
    pod.container("app").copy(program, "/mortal").program(&words)
}

/// What is on record of deaths, the oldest first.
fn history(config: &DaemonConfig) -> Vec<Death> {
    let text = std::fs::read_to_string(config.state_dir().join("deaths.jsonl"));
    text.unwrap_or_default()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|mut line| Death {
            record: line["death"].take(),
            explanation: line["explanation"].take(),
        })
        .collect()
}

/// The record of a death and its explanation, as JSON.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    pub(crate) record: Value,
    pub(crate) explanation: Value,
}

/// What the record says.
impl Index<&str> for Death {
    type Output = Value;

    fn index(&self, key: &str) -> &Value {
        &self.record[key]
    }
}

/// Waits for the record that fits.
pub(crate) fn await_death(
    config: &DaemonConfig,
    what: &str,
    fits: impl Fn(&Death) -> bool,
) -> Result<Death, Failed> {
    wait_for(PATIENCE, || history(config).into_iter().find(|death| fits(death))).ok_or_else(|| {
        let all: Vec<Value> = history(config).into_iter().map(|death| death.record).collect();
        format!("no record of {what}; there are {:#}", Value::from(all)).into()
    })
}

/// Waits for the record of a container's death.
pub(crate) fn container_death(config: &DaemonConfig, id: &str) -> Result<Death, Failed> {
    await_death(config, &format!("the death of the container {id}"), |death| {
        death.is_in(id) && death["subject"] == "container"
    })
}

/// Waits for the record of the death of a process of a container, by its number inside.
fn process_death(config: &DaemonConfig, container: &Container, pid: u64) -> Result<Death, Failed> {
    let what = format!("the death of the process {pid} of {}", container.id());
    await_death(config, &what, |death| {
        death.is_in(container.id()) && death["process"]["namespace_pid"] == pid
    })
}

/// Waits for a line `word NUMBER ...` of a container's output, and gives its numbers.
pub(crate) fn hear_numbers(container: &Container, word: &str) -> Result<Vec<u64>, Failed> {
    hear_nth(container, word, 0)
}

/// The same for the line of that place among those with the word.
fn hear_nth(container: &Container, word: &str, place: usize) -> Result<Vec<u64>, Failed> {
    let numbers = |line: &str| -> Option<Vec<u64>> {
        let rest = line.strip_prefix(word)?.strip_prefix(' ')?;
        rest.split(' ').map(|number| number.parse().ok()).collect()
    };
    // A line counts when it is whole.
    wait_for(PATIENCE, || {
        let said = container.stdout();
        let whole = &said[..said.rfind('\n').map_or(0, |end| end + 1)];
        whole.lines().filter_map(numbers).nth(place)
    })
    .ok_or_else(|| {
        format!("no line {word:?}: {:?}, {:?}", container.stdout(), container.stderr()).into()
    })
}

/// Runs containers to their ends, one after the other, under a daemon that was there before them. Gives for each its record
/// and what the runtime was told.
fn die_each(ways: &[&[&str]]) -> Result<Vec<(Death, i32)>, Failed> {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let mut dead = Vec::new();
    for how in ways {
        let finished = mortal(&pod, how).run()?;
        let death = container_death(&config, &finished.id)?;
        death.expect_sound()?;
        death.expect_seen_from_birth()?;
        dead.push((death, finished.output.status.code().unwrap_or(-1)));
    }
    Ok(dead)
}

/// Nothing is added to a container.
const PLAIN: fn(ContainerBuilder) -> ContainerBuilder = |builder| builder;

/// Lets a child of a container's first process die so, for each way in a container of its own. Gives each record with the status
/// that its parent was told.
fn in_children(
    with: fn(ContainerBuilder) -> ContainerBuilder,
    ways: &[&[&str]],
) -> Result<Vec<(Death, u64)>, Failed> {
    let ways: Vec<Vec<&str>> = ways.iter().map(|how| [&["run"], *how].concat()).collect();
    let ways: Vec<&[&str]> = ways.iter().map(Vec::as_slice).collect();
    of_those_buried(with, &ways)
}

/// The same of programs that make the child themselves, and say how it ended.
fn of_those_buried(
    with: fn(ContainerBuilder) -> ContainerBuilder,
    ways: &[&[&str]],
) -> Result<Vec<(Death, u64)>, Failed> {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let start = |how: &&[&str]| with(mortal(&pod, how)).start();
    let apps: Vec<_> = ways.iter().map(start).collect::<Result<_, _>>()?;
    let bury = |app| {
        let buried = hear_numbers(app, "buried")?;
        let death = process_death(&config, app, buried[0])?;
        death.expect_sound()?;
        expect_eq("subject", &death["subject"], &json!("process"))?;
        Ok((death, buried[1]))
    };
    apps.iter().map(bury).collect()
}

/// Lets a container play under a daemon that was there first.
fn play(
    container: impl FnOnce(&Pod) -> ContainerBuilder,
    act: impl FnOnce(&DaemonConfig, &Pod, &mut Container) -> Outcome,
) -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let mut container = container(&pod).start()?;
    act(&config, &pod, &mut container)
}

/// Waits for the end of a container and for its record.
fn end(config: &DaemonConfig, container: &mut Container, code: i32) -> Result<Death, Failed> {
    expect_eq("what the runtime was told", &container.wait()?.code(), &Some(code))?;
    let death = container_death(config, container.id())?;
    death.expect_sound()?;
    death.expect_seen_from_birth()?;
    Ok(death)
}

/// The name that the kernel has of this process, which is what a record says of it.
fn own_name() -> Result<String, Failed> {
    let path = format!("/proc/{}/comm", std::process::id());
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

impl Death {
    fn is_in(&self, id: &str) -> bool {
        self["container"]["runtime_id"] == id
    }

    fn evidence(&self) -> impl Iterator<Item = &Value> {
        self["evidence"].as_array().into_iter().flatten()
    }

    pub(crate) fn facts(&self, kind: &str) -> Vec<&Value> {
        self.evidence().filter(|evidence| evidence["fact"] == kind).collect()
    }

    fn fact(&self, kind: &str) -> Result<&Value, Failed> {
        self.facts(kind)
            .pop()
            .ok_or_else(|| format!("no fact {kind:?} in {:#}", self.record).into())
    }

    /// The signal that ended it.
    fn deciding(&self) -> Result<&Value, Failed> {
        let index = self["decided_by"].as_u64().ok_or_else(|| {
            Failed::from(format!("no signal decided, according to {:#}", self.record))
        })?;
        Ok(&self["evidence"][index as usize])
    }

    fn unseen(&self) -> Vec<&str> {
        let unseen = self["unseen"].as_array().into_iter().flatten();
        unseen.filter_map(Value::as_str).collect()
    }

    /// What holds for every record: evidence in its order, and a deciding signal of the status' number.
    fn expect_sound(&self) -> Outcome {
        let before: Vec<u64> =
            self.evidence().filter_map(|evidence| evidence["before_ns"].as_u64()).collect();
        expect(
            format!("evidence comes the oldest first: {:#}", self.record),
            before.is_sorted_by(|one, next| one >= next),
        )?;
        if let Some(index) = self["decided_by"].as_u64() {
            let signal = &self["evidence"][index as usize];
            expect_eq("deciding signal", &signal["number"], &self["status"]["signal"])?;
        }
        expect_eq(
            "lost",
            &self["losses"],
            &json!({"ring_full": 0, "signals_forgotten": 0, "evicted": 0}),
        )
    }

    fn expect_seen_from_birth(&self) -> Outcome {
        for missing in ["started-before-daemon", "signals-not-watched", "program", "container-init"]
        {
            expect(
                format!("{missing} is not among the unseen: {:#}", self.record),
                !self.unseen().contains(&missing),
            )?;
        }
        Ok(())
    }

    /// The verdict, that sure in percent, resting on these pieces of evidence in their order: a fact by its name, a signal by its
    /// number (`signal 15`).
    fn expect_verdict(
        &self,
        verdict: &str,
        confidence: RangeInclusive<u64>,
        rests_on: &[&str],
    ) -> Outcome {
        claim::given(verdict);
        let told = &self.explanation;
        let piece = |index: &Value| {
            let evidence = &self["evidence"][index.as_u64().unwrap_or(u64::MAX) as usize];
            match evidence["fact"].as_str().unwrap_or("nothing") {
                "signal" => format!("signal {}", evidence["number"]),
                fact => fact.to_owned(),
            }
        };
        let pieces: Vec<String> =
            told["rests_on"].as_array().into_iter().flatten().map(piece).collect();
        let is_that_sure =
            told["confidence"].as_u64().is_some_and(|percent| confidence.contains(&percent));
        if told["verdict"] != verdict || !is_that_sure || pieces != rests_on {
            return Err(format!(
                "expected {verdict}, {confidence:?} % sure, because of {rests_on:?}, not because of {pieces:?}: \
                 {told:#} of {:#}",
                self.record
            )
            .into());
        }
        Ok(())
    }

    /// What the explanation says in words.
    fn expect_told(&self, words: &str) -> Outcome {
        let told = |key: &str| self.explanation[key].as_str().unwrap_or_default();
        expect(
            format!("{words:?} is said: {:#}", self.explanation),
            told("headline").contains(words) || told("explanation").contains(words),
        )
    }

    fn expect_exited(&self, code: u8) -> Outcome {
        if self["status"] != json!({"how": "exited", "code": code}) {
            return Err(format!("expected the exit code {code} of {:#}", self.record).into());
        }
        expect_eq("decided_by", &self["decided_by"], &Value::Null)
    }

    fn expect_killed(&self, signal: i32) -> Outcome {
        expect_eq("how", &self["status"]["how"], &json!("killed"))?;
        expect_eq("signal", &self["status"]["signal"], &json!(signal))
    }

    /// The deciding signal: by which road, what its sender is, and the sender's name; none for the kernel.
    fn expect_decided(&self, way: &str, relation: &str, sender: Option<&str>) -> Outcome {
        let signal = self.deciding()?;
        let said = [&signal["way"], &signal["relation"], &signal["sender"]["comm"]];
        let expected = [json!(way), json!(relation), json!(sender)];
        let kind = if sender.is_some() { "process" } else { "kernel" };
        if said != expected.each_ref() || signal["sender"]["kind"] != kind {
            let record = &self.record;
            return Err(format!(
                "expected {expected:?} from a {kind}, not {signal:#} of {record:#}"
            )
            .into());
        }
        Ok(())
    }
}
