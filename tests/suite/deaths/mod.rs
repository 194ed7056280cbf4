//! Claims about deaths: real processes in real containers that end in ways that the trial knows beforehand.
//!
//! What the daemon wrote is held against witnesses that it did not ask: the status that the parent was told, what the
//! memory controller counted, and what the trial itself did.

mod by_itself;
mod by_memory;
mod by_others;
mod many;
mod verdicts;

use std::path::PathBuf;
use std::sync::OnceLock;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use whodunit_containers::condition::{PATIENCE, wait_for};
use whodunit_containers::program::MORTAL;
use whodunit_containers::{Container, ContainerBuilder, DaemonConfig, Pod};

use crate::report::{expect, expect_eq};
use crate::{Outcome, machine, needing};

pub(super) fn trials() -> Vec<Trial> {
    [
        by_itself::trials(),
        by_others::trials(),
        by_memory::trials(),
        many::trials(),
        verdicts::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A claim about deaths: the machine must be able to capture, and to make the program that dies.
fn about_deaths(name: &'static str, test: fn() -> Outcome) -> Trial {
    needing(name, || machine::lacks_for_capture().or_else(lacks_for_dying), test)
}

fn lacks_for_dying() -> Option<&'static str> {
    program().as_ref().err().map(String::as_str)
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
        .map(|line| Death(line["death"].clone()))
        .collect()
}

/// The record of a death, as JSON.
#[derive(Clone, Debug)]
struct Death(Value);

/// Waits for the record that fits.
fn await_death(
    config: &DaemonConfig,
    what: &str,
    fits: impl Fn(&Death) -> bool,
) -> Result<Death, Failed> {
    wait_for(PATIENCE, || history(config).into_iter().find(|death| fits(death))).ok_or_else(|| {
        let all: Vec<Value> = history(config).into_iter().map(|death| death.0).collect();
        format!("no record of {what}; there are {:#}", Value::from(all)).into()
    })
}

/// Waits for the record of a container's death.
fn container_death(config: &DaemonConfig, id: &str) -> Result<Death, Failed> {
    await_death(config, &format!("the death of the container {id}"), |death| {
        death.is_in(id) && death.0["subject"] == "container"
    })
}

/// Waits for the record of the death of a process of a container, by its number inside.
fn process_death(config: &DaemonConfig, container: &Container, pid: u64) -> Result<Death, Failed> {
    let what = format!("the death of the process {pid} of {}", container.id());
    await_death(config, &what, |death| {
        death.is_in(container.id()) && death.0["process"]["namespace_pid"] == pid
    })
}

/// Waits for a line `word NUMBER ...` of a container's output, and gives its numbers.
fn hear_numbers(container: &Container, word: &str) -> Result<Vec<u64>, Failed> {
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

impl Death {
    fn is_in(&self, id: &str) -> bool {
        self.0["container"]["runtime_id"] == id
    }

    fn evidence(&self) -> impl Iterator<Item = &Value> {
        self.0["evidence"].as_array().into_iter().flatten()
    }

    fn facts(&self, kind: &str) -> Vec<&Value> {
        self.evidence().filter(|evidence| evidence["fact"] == kind).collect()
    }

    fn fact(&self, kind: &str) -> Result<&Value, Failed> {
        self.facts(kind).pop().ok_or_else(|| format!("no fact {kind:?} in {:#}", self.0).into())
    }

    /// The signal that ended it.
    fn deciding(&self) -> Result<&Value, Failed> {
        let index = self.0["decided_by"]
            .as_u64()
            .ok_or_else(|| Failed::from(format!("no signal decided, according to {:#}", self.0)))?;
        Ok(&self.0["evidence"][index as usize])
    }

    fn unseen(&self) -> Vec<&str> {
        let unseen = self.0["unseen"].as_array().into_iter().flatten();
        unseen.filter_map(Value::as_str).collect()
    }

    /// What holds for every record: evidence in its order, and a deciding signal of the status' number.
    fn expect_sound(&self) -> Outcome {
        let before: Vec<u64> =
            self.evidence().filter_map(|evidence| evidence["before_ns"].as_u64()).collect();
        expect(
            format!("evidence comes the oldest first: {:#}", self.0),
            before.is_sorted_by(|one, next| one >= next),
        )?;
        if let Some(index) = self.0["decided_by"].as_u64() {
            let signal = &self.0["evidence"][index as usize];
            expect_eq("deciding signal", &signal["number"], &self.0["status"]["signal"])?;
        }
        expect_eq(
            "lost",
            &self.0["losses"],
            &json!({"ring_full": 0, "signals_forgotten": 0, "evicted": 0}),
        )
    }

    fn expect_seen_from_birth(&self) -> Outcome {
        for missing in ["started-before-daemon", "signals-not-watched", "program", "container-init"]
        {
            expect(
                format!("{missing} is not among the unseen: {:#}", self.0),
                !self.unseen().contains(&missing),
            )?;
        }
        Ok(())
    }

    fn expect_exited(&self, code: u8) -> Outcome {
        expect_eq("status", &self.0["status"], &json!({"how": "exited", "code": code}))?;
        expect_eq("decided_by", &self.0["decided_by"], &Value::Null)
    }

    fn expect_killed(&self, signal: i32) -> Outcome {
        expect_eq("how", &self.0["status"]["how"], &json!("killed"))?;
        expect_eq("signal", &self.0["status"]["signal"], &json!(signal))
    }

    /// The deciding signal: by which road, what its sender is, and the sender's name; none for the kernel.
    fn expect_decided(&self, way: &str, relation: &str, sender: Option<&str>) -> Outcome {
        let signal = self.deciding()?;
        let said = [&signal["way"], &signal["relation"], &signal["sender"]["comm"]];
        let expected = [json!(way), json!(relation), json!(sender)];
        let kind = if sender.is_some() { "process" } else { "kernel" };
        if said != expected.each_ref() || signal["sender"]["kind"] != kind {
            return Err(format!("expected {expected:?} from a {kind}, not {signal:#}").into());
        }
        Ok(())
    }
}
