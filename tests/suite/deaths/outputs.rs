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

/// Waits until a file has the line of a container's death, whole, and gives the record and its explanation. Containers of other
/// trials may die meanwhile.
fn await_line(path: &Path, container: &str) -> Result<(Value, Value), Failed> {
    let read = || {
        let text = std::fs::read_to_string(path).ok()?;
        let whole = &text[..text.rfind('\n')?];
        let mut lines = whole.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["death"]["container"]["runtime_id"] == container)
    };
    let missing = || format!("no line of {container} in {}", path.display());
    let line = wait_for(PATIENCE, read).ok_or_else(missing)?;
    Ok((line["death"].clone(), line["explanation"].clone()))
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
    let mut first = None;
    for (code, is_moved) in [("3", true), ("4", false)] {
        let app = mortal(&pod, &["exit", code]).run()?;
        let death = container_death(&config, &app.id)?;
        death.expect_verdict("application-error", 95..=99, &[])?;
        let expected = (death.record, death.explanation);
        expect_eq("the file", &await_line(&file, &app.id)?, &expected)?;
        if is_moved {
            std::fs::rename(&file, &moved)?;
        }
        let place = if is_moved { &moved } else { &file };
        expect_eq("where it is at the end", &await_line(place, &app.id)?, &expected)?;
        expect_eq("standard output", &await_line(&stdout, &app.id)?, &expected)?;
        first.get_or_insert(app.id);
    }
    let first = first.ok_or("two died")?;
    expect("the new file begins anew", !std::fs::read_to_string(&file)?.contains(&first))?;
    let exit: Exit = daemon.stop()?;
    expect(format!("it ends well: {exit}"), exit.code() == Some(0))
}
