//! Deaths for others than the history: lines of JSON in a file and on standard output.

use std::path::Path;

use libtest_mimic::Failed;
use serde_json::Value;
use whodunit_containers::condition::{PATIENCE, wait_for};
use whodunit_containers::{DaemonConfig, Exit, Pod};

use super::claim::Claim;
use super::{container_death, mortal};
use crate::Outcome;
use crate::report::{expect, expect_eq};

pub(super) fn claims() -> Vec<Claim> {
    vec![Claim::new(
        "deaths::each_goes_to_the_file_and_to_standard_output_as_a_line",
        &["application-error"],
        lines,
    )]
}

/// Waits until a file has so many whole lines, and gives them.
fn await_lines(path: &Path, count: usize) -> Result<Vec<Value>, Failed> {
    let read = || {
        let text = std::fs::read_to_string(path).ok()?;
        let lines: Vec<Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() >= count && text.ends_with('\n')).then_some(lines)
    };
    wait_for(PATIENCE, read).ok_or_else(|| format!("no {count} lines in {}", path.display()).into())
}

fn lines() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let folder = config.folder().to_owned();
    let [file, moved, stdout] =
        ["out/deaths.jsonl", "out/deaths.1.jsonl", "out/stdout"].map(|name| folder.join(name));
    let redirect = format!("exec \"$@\" > {}", stdout.display());
    let config = config
        .wrapped(&["/bin/sh", "-c", &redirect, "sh"])
        .more_toml(&format!("[deaths]\nfile = {:?}\nstdout = true", file.display().to_string()));
    let daemon = config.start()?;
    let mut expected = Vec::new();
    for code in ["3", "4"] {
        let app = mortal(&pod, &["exit", code]).run()?;
        let death = container_death(&config, &app.id)?;
        death.expect_verdict("application-error", 95..=99, &[])?;
        expected.push((death.record, death.explanation));
        if code == "3" {
            await_lines(&file, 1)?;
            std::fs::rename(&file, &moved)?;
        }
    }
    let in_files = [await_lines(&moved, 1)?, await_lines(&file, 1)?].concat();
    let on_stdout = await_lines(&stdout, 2)?;
    for (place, lines) in [("the files", in_files), ("standard output", on_stdout)] {
        let found: Vec<(Value, Value)> = lines
            .into_iter()
            .map(|line| (line["death"].clone(), line["explanation"].clone()))
            .collect();
        expect_eq(place, &found, &expected)?;
    }
    let exit: Exit = daemon.stop()?;
    expect(format!("it ends well: {exit}"), exit.code() == Some(0))
}
